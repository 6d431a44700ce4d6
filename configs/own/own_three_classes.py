# Clips whose lists have seven classes, for a model of three: negative, neutral and positive.
# The rest is configs/own/own_clips.py
_base_ = './own_clips.py'

# ------------------------------------------------ what you change
classes = ('negative', 'neutral', 'positive')
label_map = dict(  # class in the lists: class of the model, or None to leave its clips out
    anger='negative',
    disgust='negative',
    fear='negative',
    happiness='positive',
    neutral='neutral',
    sadness='negative',
    surprise=None,
)
# ----------------------------------------------------------------

model = dict(cls_head=dict(num_classes=dict(_delete_=True, video=len(classes))))
dataset = dict(metainfo=dict(classes=classes), label_map=label_map)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = dict(dataset=dataset)
