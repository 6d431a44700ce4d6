# DeepSpeed ZeRO-2: gradients and optimizer states are spread over all
# processes, the parameters are not. Needs `pip install deepspeed`. Stage 3,
# which spreads the parameters too:
#   --cfg-options strategy.zero_optimization.stage=3
# What DeepSpeed saves is a folder; to weights for everything else:
#   python WORK_DIR/zero_to_fp32.py WORK_DIR OUT_DIR --tag epoch_100.pth
# docs/scaling.md says when this pays off.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='S4DDeepSpeedStrategy',
    zero_optimization=dict(stage=2),
    config=dict(
        # parameters stay in float32, as with AmpOptimWrapper
        torch_autocast=dict(enabled=True, dtype='bfloat16')))
