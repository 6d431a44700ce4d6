# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw what collect.py found inside of a model: experts, both tasks, features, a clip's frames.

    python tools/analysis_tools/look_inside.py collected.npz [experts faces ...] [--out FOLDER]

A .csv file lies beside each picture, see docs/tools.md.
"""

import argparse
import os.path as osp
import sys
import zipfile

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from statistics_of import overlap, wilson
from style import colours, heat, panels, save

Drawn = tuple[Figure, list[dict]]
SIZE = 112  # pixels of a face


def kinds_with(found: dict, key: str, message: str) -> list[str]:
    kinds = [kind for kind in ('video', 'image') if f'{kind}_{key}' in found]
    if not kinds:
        raise ValueError(message)
    return kinds


def of_classes(values: np.ndarray, labels: np.ndarray, number: int) -> np.ndarray:
    """Mean of the values (N, ...) of each class; NaN for one without samples."""
    means = np.full((number, *values.shape[1:]), np.nan)
    for label in np.unique(labels):
        means[label] = values[labels == label].mean(axis=0)
    return means


def experts(found: dict) -> Drawn:
    """Shares of the tokens; the overlap is one minus the Jensen-Shannon distance."""
    kinds = kinds_with(found, 'share', 'the model has no MoAENeck, so no experts')
    fig, axes = panels(len(kinds), len(found['blocks']), 3.6, 3.2)
    rows, most = [], 100 * max(found[f'{kind}_share'].mean(0).max() for kind in kinds)
    for b, block in enumerate(found['blocks'].tolist()):
        means = [found[f'{kind}_share'][:, b].mean(axis=0) for kind in kinds]
        same = f'\noverlap of clips and images {overlap(*means):.2f}' if len(kinds) == 2 else ''
        for ax, kind, mean in zip(axes[:, b], kinds, means):
            names, share = found[f'{kind}_classes'], found[f'{kind}_share'][:, b]
            own = of_classes(share, found[f'{kind}_label'], len(names))
            order = np.argsort(names)  # the same for both
            title = f'block {block}, {kind}: % of tokens{same}'
            values = 100 * np.vstack((mean, own[order]))
            labels = dict(title=title, xlabel='expert', span=(0, 1.5 * most))
            rows += heat(ax, values, ['all', *names[order]], range(len(mean)), **labels)
    return fig, rows


def faces(found: dict) -> Drawn:
    """The expert with the largest weight of each token, over a clip and an image."""
    message = 'this needs a MoAENeck on tokens of S4DViT or on feature maps'
    kinds, rows, tiles, titles = kinds_with(found, 'experts', message), [], [], []
    blocks, palette = found['blocks'].tolist(), colours(found[f'{kinds[0]}_share'].shape[2])
    for kind in kinds:
        n, frames = found[f'{kind}_shown'][0], found[f'{kind}_frames'][0] / 255
        chosen = found[f'{kind}_experts'][n]  # B t h w
        times = (2 * np.arange(chosen.shape[1]) + 1) * len(frames) // (2 * chosen.shape[1])
        sizes = *frames.shape[1:3], *chosen.shape[2:]
        y, x, row, column = (np.arange(SIZE) * size // SIZE for size in sizes)
        frames = frames[times][:, y][:, :, x]  # t SIZE SIZE 3
        over = palette[chosen[:, :, row][..., column]]
        tiles.append(np.concatenate((frames[None], (frames.mean(-1, keepdims=True) + over) / 2)))
        titles += [f'frame {t}' if kind == 'video' else 'image' for t in times]
        place = dict(modality=kind, sample=found[f'{kind}_id'][n])
        for (b, t, i, j), expert in np.ndenumerate(chosen):
            place = dict(place, block=blocks[b], time=times[t], row=i, column=j)
            rows.append(dict(place, expert=int(expert)))
    picture = np.concatenate(tiles, axis=1).swapaxes(1, 2)  # 1+B SIZE t SIZE 3
    height, width = len(picture), picture.shape[2]
    fig, ((ax,),) = panels(1, 1, 0.8 + 0.9 * width, 0.8 + 0.9 * height)
    ax.imshow(picture.reshape(height * SIZE, width * SIZE, 3))
    ax.set_xticks((np.arange(width) + 0.5) * SIZE, titles)
    ax.set_yticks((np.arange(height) + 0.5) * SIZE, ['', *(f'block {block}' for block in blocks)])
    marks = [Line2D([], [], ls='', marker='s', color=c, label=e) for e, c in enumerate(palette)]
    fig.legend(handles=marks, title='expert', ncols=len(palette), loc='outside lower center')
    return fig, rows


def tasks(found: dict) -> Drawn:
    """The image classifier on single frames of clips, and the class centres of both tasks."""
    if not {'video_alone', 'image_label'} <= set(found):
        raise ValueError('this needs clips and images in the test data, and a classifier of each')
    names = [found[f'{kind}_classes'].tolist() for kind in ('video', 'image')]
    both = [name for name in names[0] if name in names[1]]
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
    said = np.eye(len(both))[alone.argmax(axis=2)].mean(axis=1)
    centres = []
    for kind, order in (('video', ours), ('image', theirs)):
        values, labels = found[f'{kind}_features'], found[f'{kind}_label']
        own = of_classes(values, labels, labels.max() + 1)[order]
        own -= np.nanmean(own, axis=0)
        centres.append(own / np.linalg.norm(own, axis=1, keepdims=True))
    fig, axes = panels(1, 3, 4.8, 4.2)
    title = 'Image classifier on single frames:\n% of the frames of a class'
    labels = dict(title=title, xlabel='said of the frame', ylabel='class of the clip')
    rows = heat(axes[0, 0], 100 * of_classes(said, truth, len(both)), both, both, **labels)
    title = "Cosine x 100 of the class centres' features,\neach less the mean of its task"
    labels = dict(title=title, xlabel='image', ylabel='clip', span=(-100, 100))
    rows += heat(axes[0, 1], 100 * centres[0] @ centres[1].T, both, both, **labels)
    ax, last = axes[0, 2], len(truth)
    for i, (name, scores) in enumerate(answers.items()):
        hits = np.sum(scores.argmax(axis=1) == truth)
        war, low, high = 100 * np.array([hits / last, *wilson(hits, last)])
        ax.bar(i, war, yerr=[[war - low], [high - war]], color=colours(4)[i], capsize=4)
        ax.text(i, 2, f'{war:.1f}', ha='center', color='white')
        cells = dict(WAR=war, low=low, high=high).items()
        rows += [dict(panel='WAR', row=name, column=key, value=v) for key, v in cells]
    ax.set_xticks(range(len(answers)), answers, rotation=20)
    ax.set(title=f'WAR of clips, %\n(apex by truth: {known.sum()} of {last})', ylim=(0, 100))
    return fig, rows


def features(found: dict) -> Drawn:
    """Features of both modalities in a plane: t-SNE if scikit-learn is there, else PCA."""
    kinds = kinds_with(found, 'features', 'there are no samples')
    x = np.concatenate([found[f'{kind}_features'] for kind in kinds])
    labels = np.concatenate([found[f'{k}_classes'][found[f'{k}_label']] for k in kinds])
    marks = np.repeat(kinds, [len(found[f'{kind}_label']) for kind in kinds])
    try:
        from sklearn.manifold import TSNE

        name = 't-SNE'
        x = TSNE(perplexity=min(30, (len(x) - 1) / 3), random_state=0).fit_transform(x)
    except ImportError:
        name, x = 'PCA', x - x.mean(axis=0)
        x = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
    classes, (fig, ((ax,),)) = np.unique(labels), panels(1, 1, 8, 6)
    for kind, shape in zip(kinds, 'o^'):
        for label, color in zip(classes, colours(len(classes))):
            own = x[(labels == label) & (marks == kind)].T
            look = dict(marker=shape, alpha=0.7, lw=0, label=f'{label}, {kind}')
            ax.scatter(*own, 25, [color], **look)
    title = f'Features of {len(x)} samples'
    ax.set(title=title, xlabel=f'{name}, first axis', ylabel=f'{name}, second axis')
    fig.legend(loc='outside right center')
    ids = np.concatenate([found[f'{kind}_id'] for kind in kinds])
    keys = ('modality', 'sample', 'class', 'x', 'y')
    return fig, [dict(zip(keys, row)) for row in zip(marks, ids, labels, *x.T)]


def frames(found: dict) -> Drawn:
    """Drop of the true class's probability where the mean frame is in the place of a frame."""
    kinds_with(found, 'hidden', 'there are no clips in the test data')
    labels, strength, ids = (found[f'video_{key}'] for key in ('label', 'strength', 'id'))
    own = np.take_along_axis(found['video_scores'], labels[:, None], axis=1)
    drop = 100 * (own - found['video_hidden'])
    best = max(
        range(len(found['video_shown'])), key=lambda i: np.ptp(drop[found['video_shown'][i]])
    )
    n, clip = found['video_shown'][best], found['video_frames'][best]
    names, ends = found['video_classes'][labels], (-0.5, len(clip) - 0.5)
    fig, axes = panels(3, 2, 5.5, 1.5)
    axes[0, 0].imshow(np.hstack(list(clip)), extent=(*ends, 0, 1))
    axes[0, 0].set(title=f'{names[n]}, clip {ids[n]}', xticks=[], yticks=[])
    axes[0, 1].set_axis_off()
    axes[1, 1].set_title(f'mean of {len(drop)} clips, 95 % intervals')
    for pair, values, color in zip(axes[1:], (drop, strength), colours(2)):
        error = 1.96 * values.std(axis=0) / len(values) ** 0.5
        pair[0].bar(range(len(clip)), values[n], color=color)
        pair[1].bar(range(len(clip)), values.mean(axis=0), yerr=error, color=color)
        pair[0].set(xlim=ends, ylabel='drop, points' if values is drop else 'facial actions')
    fig.supxlabel('frame')
    keys = ('sample', 'class', 'frame', 'drop', 'strength')
    cells = [(ids[n], names[n], t, v, strength[n, t]) for (n, t), v in np.ndenumerate(drop)]
    return fig, [dict(zip(keys, row)) for row in cells]


DRAWN = dict(experts=experts, faces=faces, tasks=tasks, features=features, frames=frames)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('collected', help='the file of collect.py')
    parser.add_argument('what', nargs='*', help=f'of {", ".join(DRAWN)}; default: all')
    parser.add_argument('--out', default='.', help='folder of the pictures')
    args = parser.parse_args(argv)
    if not set(args.what) <= set(DRAWN):
        parser.error(f'{" ".join(args.what)}: only {", ".join(DRAWN)} can be drawn')
    try:
        found = dict(np.load(args.collected))
    except (OSError, ValueError, zipfile.BadZipFile) as e:
        parser.error(f'{args.collected} is not a file of collect.py: {e}')
    for name in args.what or DRAWN:
        try:
            save(*DRAWN[name](found), osp.join(args.out, f'{name}.png'))
        except (OSError, ValueError) as e:
            print(f'{name}.png is not drawn: {e}', file=sys.stderr)
            if args.what:
                sys.exit(2)


if __name__ == '__main__':
    main()
