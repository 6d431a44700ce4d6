# DeepSpeed ZeRO-2: gradients and optimizer states are spread over all
# processes, the parameters are not. Needs `pip install deepspeed`. Stage 3,
# which spreads the parameters too:
#   --cfg-options strategy.zero_optimization.stage=3
# What DeepSpeed saves is a folder; docs/scaling.md says how to make an
# ordinary checkpoint of it, and when this pays off.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='S4DDeepSpeedStrategy',
    zero_optimization=dict(stage=2),
    config=dict(
        # parameters stay in float32, as with AmpOptimWrapper
        torch_autocast=dict(enabled=True, dtype='bfloat16')
    ),
)
