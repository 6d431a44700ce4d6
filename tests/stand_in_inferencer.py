# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A stand-in for ExpressionInferencer: real files and records, and no model."""

import os.path as osp

from s4d_mm.apis.results import ExpressionRecord, ExpressionResult, MediaResult
from s4d_mm.media import is_picture, read_image, read_video, write_image, write_mp4


class StandIn:
    """Every picture with a spot that is not grey holds a happy face."""

    def __call__(self, path, faces='auto', out_dir=None):
        image = is_picture(path)
        frames = [read_image(path)] if image else list(read_video(path))
        media = MediaResult(path, 'image' if image else 'video', len(frames), 25.0)
        media.trained_on = 'drawn faces'
        if frames[-1].std() < 5:
            media.status, media.message = 'no_face', 'no face was found in it'
            return ExpressionResult([media])
        times = (None, None) if image else (0.0, len(frames) / 25)
        media.records.append(
            ExpressionRecord(
                media=path,
                face=None if faces == 'none' else 1,
                start=times[0],
                end=times[1],
                start_frame=0,
                end_frame=len(frames),
                box=(0.0, 0.0, 9.0, 9.0),
                label='happiness',
                probabilities=dict(happiness=0.9, sadness=0.1),
            )
        )
        result = ExpressionResult([media])
        base = osp.join(out_dir, osp.splitext(osp.basename(path))[0])
        result.to_csv(base + '.csv')
        result.to_json(base + '.json')
        if image:
            write_image(base + '.png', frames[0])
        else:
            write_mp4(base + '.mp4', frames)
            write_image(base + '_timeline.png', frames[0])
        return result
