# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw what collect.py found inside of a model: experts, both tasks, a clip's frames.

    python tools/analysis_tools/look_inside.py collected.npz [experts faces ...] [--out FOLDER]

A .csv file lies beside each picture, see docs/tools.md.
"""

import argparse
import os
import os.path as osp
import zipfile

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from statistics_of import overlap, wilson
from style import colours, heat, panels, save

from s4d_mm.engine.launch import errors_as_messages

Drawn = tuple[Figure, list[dict]]
SIZE = 112  # pixels of a face


def kinds_with(found: dict, key: str) -> list[str]:
    return [kind for kind in ('video', 'image') if f'{kind}_{key}' in found]


def of_classes(values: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Mean of the values (N, ...) of each class; NaN for one without samples."""
    means = np.full((number, *values.shape[1:]), np.nan)
    for label in np.unique(labels):
        means[label] = values[labels == label].mean(axis=0)
    return means


def experts(found: dict) -> Drawn:
    """Shares of the tokens; the overlap is one minus the Jensen-Shannon distance."""
    kinds, blocks, rows = kinds_with(found, 'share'), found['blocks'].tolist(), []
    most = 150 * max(found[f'{kind}_share'].mean(axis=0).max() for kind in kinds)
    fig, axes = panels(len(kinds), len(blocks), 3.6, 3.2)
    for b, block in enumerate(blocks):
        means = [found[f'{kind}_share'][:, b].mean(axis=0) for kind in kinds]
        same = f'\noverlap of clips and images {overlap(*means):.2f}' if len(kinds) == 2 else ''
        for ax, kind, mean in zip(axes[:, b], kinds, means):
            share, labels, names = (found[f'{kind}_{k}'] for k in ('share', 'label', 'classes'))
            order = np.argsort(names)  # the same for both
            own = of_classes(share[:, b], labels, len(names))[order]
            title = f'block {block}, {kind}: % of tokens{same}'
            style = dict(title=title, xlabel='expert', span=(0, most))
            values = 100 * np.vstack((mean, own))
            rows += heat(ax, values, ['all', *names[order]], range(len(mean)), **style)
    return fig, rows


def faces(found: dict) -> Drawn:
    """The expert with the largest weight of each token, over a clip and an image."""
    blocks, tiles, titles, rows = found['blocks'].tolist(), [], [], []
    for kind in kinds_with(found, 'experts'):
        n, frames = found[f'{kind}_shown'][0], found[f'{kind}_frames'][0] / 255
        chosen, name = found[f'{kind}_experts'][n], found[f'{kind}_id'][n]  # B t h w
        palette, length = colours(found[f'{kind}_share'].shape[2]), chosen.shape[1]
        times = (2 * np.arange(length) + 1) * len(frames) // (2 * length)
        sizes = *frames.shape[1:3], *chosen.shape[2:]
        y, x, row, column = (np.arange(SIZE) * size // SIZE for size in sizes)
        plain = frames[times][:, y][:, :, x]  # t SIZE SIZE 3
        over = palette[chosen[:, :, row][..., column]] + plain.mean(axis=-1, keepdims=True)
        tiles.append(np.concatenate((plain[None], over / 2)))
        titles += [f'frame {t}' if kind == 'video' else 'image' for t in times]
        keys = ('modality', 'sample', 'block', 'frame', 'row', 'column', 'expert')
        for (b, t, i, j), expert in np.ndenumerate(chosen):
            rows.append(dict(zip(keys, (kind, name, blocks[b], times[t], i, j, expert))))
    picture = np.concatenate(tiles, axis=1).swapaxes(1, 2)  # 1+B SIZE t SIZE 3
    height, _, width = picture.shape[:3]
    fig, ((ax,),) = panels(1, 1, 0.8 + 0.9 * width, 1.2 + 0.9 * height)
    ax.imshow(picture.reshape(height * SIZE, width * SIZE, 3))
    ax.set_title('Expert with the largest weight of each token')
    ax.set_xticks((np.arange(width) + 0.5) * SIZE, titles)
    ax.set_yticks((np.arange(1, height) + 0.5) * SIZE, [f'block {block}' for block in blocks])
    marks = [Line2D([], [], ls='', marker='s', color=c, label=e) for e, c in enumerate(palette)]
    fig.legend(handles=marks, title='expert', ncols=8, loc='outside lower center')
    return fig, rows


def tasks(found: dict) -> Drawn:
    """The image classifier on single frames of clips, and the class centres of both tasks."""
    names = [found[f'{kind}_classes'].tolist() for kind in ('video', 'image')]
    both = [name for name in names[0] if name in names[1]]
    if len(both) < 2:
        raise ValueError(f'tasks.png needs classes of the same name: {names[0]}, {names[1]}.')
    ours, theirs = ([own.index(name) for name in both] for own in names)
    kept = np.isin(found['video_label'], ours)
    truth = np.array([ours.index(label) for label in found['video_label'][kept]])
    alone, strength = found['video_alone'][kept][..., theirs], found['video_strength'][kept]
    known = ~np.isnan(strength).any(axis=1)
    apex = np.where(known, strength.argmax(axis=1), alone.max(axis=2).argmax(axis=1))
    answers = {
        'apex': alone[np.arange(len(apex)), apex],
        'middle frame': alone[:, alone.shape[1] // 2],
        'mean of frames': alone.mean(axis=1),
        'clip classifier': found['video_scores'][kept][:, ours],
    }
    said, centres = np.eye(len(both))[alone.argmax(axis=2)].mean(axis=1), []
    for kind, order in (('video', ours), ('image', theirs)):
        labels = found[f'{kind}_label']
        own = of_classes(found[f'{kind}_features'], labels, max(*order, *labels) + 1)[order]
        own -= np.nanmean(own, axis=0)
        centres.append(own / np.linalg.norm(own, axis=1, keepdims=True))
    fig, axes = panels(1, 3, 5.2, 4.2)
    title = 'Image classifier on single frames:\n% of the frames of a class'
    style = dict(title=title, xlabel='said of the frame', ylabel='class of the clip')
    rows = heat(axes[0, 0], 100 * of_classes(said, truth, len(both)), both, both, **style)
    title = "Cosine x 100 of the class centres' features,\neach less the mean of its task"
    style = dict(title=title, xlabel='image', ylabel='clip', span=(-100, 100))
    rows += heat(axes[0, 1], 100 * centres[0] @ centres[1].T, both, both, **style)
    ax, title = axes[0, 2], 'WAR of clips, %, with 95 % intervals'
    hits = np.array([np.sum(scores.argmax(axis=1) == truth) for scores in answers.values()])
    wars = 100 * np.array([hits / len(truth), *wilson(hits, len(truth))])
    names = [f'{war:.1f}\n' + name.replace(' ', '\n') for name, war in zip(answers, wars[0])]
    ax.bar(names, wars[0], yerr=np.abs(wars[1:] - wars[0]), color=colours(4), capsize=4)
    for key, values in zip(('WAR', 'low', 'high'), wars):
        rows += [dict(panel=title, row=n, column=key, value=v) for n, v in zip(answers, values)]
    said = f'apex: the strongest actions in {known.sum()} of {len(truth)} clips,\n'
    ax.set(title=title, ylim=(0, 100), xlabel=f'{said}the most confident frame in others')
    return fig, rows


def frames(found: dict) -> Drawn:
    """Drop of the true class's probability where the mean frame is in the place of a frame."""
    ids, labels, shown = (found[f'video_{key}'] for key in ('id', 'label', 'shown'))
    own = np.take_along_axis(found['video_scores'], labels[:, None], axis=1)
    drop, strength = 100 * (own - found['video_hidden']), found['video_strength']
    most = np.argmax(np.ptp(drop[shown], axis=1))
    n, clip, names = shown[most], found['video_frames'][most], found['video_classes'][labels]
    parts = [('drop, points', drop), ('facial actions', strength)]
    parts = parts if np.isfinite(strength).any() else parts[:1]
    fig, axes = panels(1 + len(parts), 2, 5.5, 1.5)
    axes[0, 0].imshow(np.hstack(list(clip)), extent=(-0.5, len(clip) - 0.5, 0, 1))
    axes[0, 0].set(title=f'{names[n]}, clip {ids[n]}', yticks=[])
    axes[0, 1].set_axis_off()
    axes[0, 1].set_title(f'mean of {len(drop)} clips, 95 % intervals', y=0)
    for pair, (label, values), color in zip(axes[1:], parts, colours(2)):
        error = 1.96 * np.nanstd(values, axis=0) / len(values) ** 0.5
        pair[0].bar(range(len(clip)), values[n], color=color)
        pair[1].bar(range(len(clip)), np.nanmean(values, axis=0), yerr=error, color=color)
        pair[0].set(xlim=(-0.5, len(clip) - 0.5), ylabel=label)
    for ax in axes.flat:
        ax.set_xticks(range(len(clip)))
    fig.supxlabel('frame')
    keys = ('sample', 'class', 'frame', 'drop', 'strength')
    cells = [(ids[i], names[i], t, v, strength[i, t]) for (i, t), v in np.ndenumerate(drop)]
    return fig, [dict(zip(keys, row)) for row in cells]


DRAWN = dict(  # with the ends of the names of the arrays that are needed, in words
    experts=(experts, ['_share'], 'a model with MoAENeck'),
    faces=(faces, ['_experts'], 'a MoAENeck on tokens of S4DViT or on feature maps'),
    tasks=(tasks, ['video_alone', 'image_label'], 'clips and images, and a classifier of each'),
    frames=(frames, ['video_hidden'], 'clips in the test data'),
)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('collected', help='the file of collect.py')
    parser.add_argument('what', nargs='*', help=f'of {", ".join(DRAWN)}; default: all')
    parser.add_argument('--out', default='.', help='folder of the pictures')
    args = parser.parse_args(argv)
    if not set(args.what) <= set(DRAWN):
        parser.error(f'{" ".join(args.what)}: only {", ".join(DRAWN)} can be drawn')
    if not zipfile.is_zipfile(args.collected):
        parser.error(f'{args.collected} is not there, or is no file of collect.py')
    with errors_as_messages(config=True):
        found = dict(np.load(args.collected))
        os.makedirs(args.out, exist_ok=True)
        for name in args.what or DRAWN:
            draw, parts, words = DRAWN[name]
            if all(any(key.endswith(part) for key in found) for part in parts):
                save(*draw(found), osp.join(args.out, f'{name}.png'))
            elif args.what:
                raise ValueError(f'{name}.png needs {words}.')
            else:
                print(f'{name}.png is left out: it needs {words}.')


if __name__ == '__main__':
    main()
