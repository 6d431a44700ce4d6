# Fully sharded data parallel: parameters, gradients and optimizer states are
# spread over all processes; a block is gathered when it is its turn.
#   tools/dist_train.sh CONFIG GPUS
# docs/scaling.md says what works with it.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='S4DFSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        auto_wrap_policy='wrap_transformer_blocks',
        # gathered and computed in bfloat16; summed in float32
        mixed_precision=dict(
            param_dtype='bfloat16', reduce_dtype='float32', buffer_dtype='float32'
        ),
    ),
    # recomputed in the backward pass
    activation_checkpointing=dict(check_fn='is_transformer_block'),
)
