# An image with the command `s4d`. See docs/install.md for the arguments.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
# where torch comes from; its wheels bring the CUDA libraries that they need
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=faces
ENV S4D_VENV=/opt/venv PIP_NO_CACHE_DIR=1
ENV PATH=/opt/venv/bin:$PATH

# what OpenCV needs, and a Python where the base has none
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 \
    && { command -v python3 || apt-get install -y --no-install-recommends python3 python3-venv; } \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/s4d_mm
COPY . .
RUN python3 -m venv "$S4D_VENV" \
    && grep -E '^torch' requirements/runtime.txt > /tmp/torch.txt \
    && python -m pip install --index-url "$TORCH_INDEX" -r /tmp/torch.txt
RUN bash tools/install.sh $EXTRAS

WORKDIR /data
ENTRYPOINT ["s4d"]
CMD ["--help"]
