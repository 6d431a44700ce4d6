# The quickstart's pre-training, sharded, with or without GPUs:
#   tools/dist_train.sh configs/quickstart/s4d_quickstart_pretrain_fsdp.py 2
_base_ = ['s4d_quickstart_pretrain.py', '../_base_/strategies/fsdp.py']
# not `import os`, which mmengine takes for a config of its other kind
work_dir = __import__('os').environ.get('QUICKSTART_DIR', 'work_dirs/quickstart') + '/pretrain_fsdp'
# in float32, to compare with the ordinary run
strategy = dict(model_wrapper=dict(mixed_precision=None))
