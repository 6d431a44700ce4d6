# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw what is inside of a trained model: its experts, both tasks, its features, a clip's frames.

    python tools/analysis_tools/look_inside.py CONFIG CHECKPOINT [experts ...] [--out FOLDER]

The model runs once over at most 500 test samples of each modality, and a .csv file lies beside each
picture: see docs/tools.md.
"""

import argparse
import os
import os.path as osp
import sys

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from collect import collected
from statistics_of import overlap, wilson
from style import colours, heat, panels, save

from s4d_mm.engine.launch import errors_as_messages

Drawn = tuple[Figure, list[dict]]


def of_classes(values: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mean of the values (N, ...) of each class; NaN for one without samples."""
    means = np.full((len(classes), *values.shape[1:]), np.nan)
    for label in np.unique(labels):
        means[label] = values[labels == label].mean(axis=0)
    return means


def experts(found: dict) -> Drawn:
    """Share of the tokens by class; one minus the Jensen-Shannon distance of the modalities."""
    kinds = [kind for kind in ('video', 'image') if f'{kind}_share' in found]
    if not kinds:
        raise ValueError('the model has no experts, which are in a MoAENeck')
    fig, axes = panels(len(kinds), len(found['blocks']), 3.4, 3.2)
    rows = []
    for column, block in enumerate(found['blocks'].tolist()):
        shares = [found[f'{kind}_share'][:, column] for kind in kinds]
        said = ''
        if len(kinds) == 2:
            same = overlap(*(share.mean(axis=0) for share in shares))
            said = f'\noverlap of clips and images {same:.2f}'
        for ax, kind, share in zip(axes[:, column], kinds, shares):
            classes = found[f'{kind}_classes']
            means = of_classes(share, found[f'{kind}_label'], classes)
            values = np.vstack((share.mean(axis=0), means))
            title = f'block {block}, {kind}: % of the tokens{said}'
            names = ['all', *classes.tolist()]
            rows += heat(ax, values, names, range(share.shape[1]), title=title, xlabel='expert')
    return fig, rows


def faces(found: dict) -> Drawn:
    """The expert with the largest weight of each token of a clip and an image, over the face."""
    kinds = [kind for kind in ('video', 'image') if f'{kind}_experts' in found]
    if not kinds:
        raise ValueError('needs a MoAENeck, on the tokens of S4DViT or on feature maps')
    count, blocks = found[f'{kinds[0]}_share'].shape[2], found['blocks'].tolist()
    columns, rows = [], []
    for kind in kinds:
        sample, frames = found[f'{kind}_shown'][0], found[f'{kind}_frames'][0]
        chosen = found[f'{kind}_experts'][sample]  # B t h w
        for t in range(chosen.shape[1]):
            at = (2 * t + 1) * len(frames) // (2 * chosen.shape[1])
            title = f'frame {at}' if kind == 'video' else 'image'
            columns.append((title, frames[at], chosen[:, t]))
        for (b, t, y, x), expert in np.ndenumerate(chosen):
            place = dict(block=blocks[b], modality=kind, sample=found[f'{kind}_id'][sample])
            rows.append(dict(place, time=t, row=y, column=x, expert=int(expert)))
    fig, axes = panels(1 + len(blocks), len(columns), 1.2, 1.3)
    palette = colours(count)
    for places, (title, frame, chosen) in zip(axes.T, columns):
        places[0].set_title(title)
        for ax, experts in zip(places, (None, *chosen)):
            ax.imshow(frame)
            ax.set(xticks=[], yticks=[])
            if experts is not None:
                size = (-0.5, frame.shape[1] - 0.5, frame.shape[0] - 0.5, -0.5)
                cmap = ListedColormap(palette)
                ax.imshow(experts, cmap, vmin=-0.5, vmax=count - 0.5, alpha=0.5, extent=size)
    for ax, block in zip(axes[1:, 0], blocks):
        ax.set_ylabel(f'block {block}')
    marks = [
        Line2D([], [], ls='', marker='s', color=palette[e], label=f'{e}') for e in range(count)
    ]
    fig.legend(handles=marks, title='expert', ncols=count, loc='outside lower center')
    return fig, rows


def tasks(found: dict) -> Drawn:
    """The image classifier on the frames of clips, and the class centres of both tasks."""
    if not {'video_alone', 'image_label'} <= set(found):
        raise ValueError('needs clips and images in the test data, and a classifier of each')
    names = [found[f'{kind}_classes'].tolist() for kind in ('video', 'image')]
    both = [name for name in names[0] if name in names[1]]
    ours, theirs = ([own.index(name) for name in both] for own in names)
    kept = np.isin(found['video_label'], ours)
    truth = np.array([ours.index(label) for label in found['video_label'][kept]])
    alone, strength = found['video_alone'][kept][:, :, theirs], found['video_strength'][kept]
    known = ~np.isnan(strength).any(axis=1)
    apex = np.where(known, strength.argmax(axis=1), alone.max(axis=2).argmax(axis=1))
    scores = {
        'apex': alone[np.arange(len(apex)), apex],
        'middle frame': alone[:, alone.shape[1] // 2],
        'mean of frames': alone.mean(axis=1),
        'clip classifier': found['video_scores'][kept][:, ours],
    }
    said = np.eye(len(both))[alone.argmax(axis=2)].mean(axis=1)
    centres = []
    for kind, columns in (('video', ours), ('image', theirs)):
        every = of_classes(*(found[f'{kind}_{key}'] for key in ('features', 'label', 'classes')))
        own = every[columns] - np.nanmean(every[columns], axis=0)
        centres.append(own / np.linalg.norm(own, axis=1, keepdims=True))
    fig, axes = panels(1, 3, 4.8, 4.2)
    title = 'Image classifier on single frames,\n% of the frames of a class'
    labels = dict(title=title, xlabel='said of the frame', ylabel='class of the clip')
    rows = heat(axes[0, 0], of_classes(said, truth, both), both, both, **labels)
    title = "Cosine x 100 of the class centres' features,\neach less its task's mean"
    labels = dict(title=title, xlabel='image', ylabel='clip')
    rows += heat(axes[0, 1], centres[0] @ centres[1].T, both, both, low=-1, **labels)
    title = (
        f'WAR on clips with 95 % intervals\n(apex by truth: {known.sum()} of {len(known)} clips)'
    )
    for i, (name, score) in enumerate(scores.items()):
        hits = int((score.argmax(axis=1) == truth).sum())
        low, high = (100 * float(end) for end in wilson(hits, len(truth)))
        value = 100 * hits / len(truth)
        axes[0, 2].bar(i, value, color=colours(4)[i], yerr=[[value - low], [high - value]])
        axes[0, 2].text(i, 2, f'{value:.1f}', ha='center', color='white')
        ends = dict(value=value, low=low, high=high)
        rows += [dict(panel='WAR', row=name, column=key, value=v) for key, v in ends.items()]
    axes[0, 2].set(title=title, ylabel='WAR, %', ylim=(0, 100))
    axes[0, 2].set_xticks(range(4), scores, rotation=20)
    return fig, rows


def features(found: dict) -> Drawn:
    """Both modalities' features in a plane: t-SNE if scikit-learn is there, else PCA."""
    kinds = [kind for kind in ('video', 'image') if f'{kind}_features' in found]
    x = np.concatenate([found[f'{kind}_features'] for kind in kinds])
    x = x - x.mean(axis=0)
    try:
        from sklearn.manifold import TSNE

        method = 't-SNE'
        x = TSNE(perplexity=min(30, (len(x) - 1) / 3), random_state=0).fit_transform(x)
    except ImportError:
        method = 'PCA'
        x = x @ np.linalg.svd(x, full_matrices=False)[2][:2].T
    labels = np.concatenate([found[f'{k}_classes'][found[f'{k}_label']] for k in kinds])
    marks = np.repeat(kinds, [len(found[f'{kind}_label']) for kind in kinds])
    names = np.unique(labels)
    fig, axes = panels(1, 1, 8, 6)
    for kind, shape in zip(kinds, 'o^'):
        for name, colour in zip(names, colours(len(names))):
            own = x[(labels == name) & (marks == kind)].T
            look = dict(color=colour, marker=shape, s=25, alpha=0.7, lw=0)
            axes[0, 0].scatter(*own, label=f'{name}, {kind}', **look)
    title = f'{method} of the features of {len(x)} samples'
    axes[0, 0].set(title=title, xlabel=f'{method} 1', ylabel=f'{method} 2')
    fig.legend(loc='outside right center')
    ids = np.concatenate([found[f'{kind}_id'] for kind in kinds])
    columns = ('modality', 'sample', 'class', 'x', 'y')
    return fig, [dict(zip(columns, row)) for row in zip(marks, ids, labels, *x.T)]


def frames(found: dict) -> Drawn:
    """Drop of the true class's probability where the mean frame is in the place of a frame."""
    if 'video_hidden' not in found:
        raise ValueError('there are no clips in the test data')
    labels, strength, ids = (found[f'video_{key}'] for key in ('label', 'strength', 'id'))
    drop = 100 * (found['video_scores'][np.arange(len(ids)), labels, None] - found['video_hidden'])
    with np.errstate(invalid='ignore'):
        like = np.nanmean([np.corrcoef(*pair)[0, 1] for pair in zip(drop, strength)])
    shown = sorted(enumerate(found['video_shown']), key=lambda pair: -drop[pair[1]].max())[:3]
    fig, axes = panels(3, 1 + len(shown), 4.2, 1.5)
    for (i, n), places in zip(shown, axes.T):
        length = len(drop[n])
        pixels = np.hstack(list(found['video_frames'][i]))
        places[0].imshow(pixels, extent=(-0.5, length - 0.5, 0, 1), aspect='auto')
        places[0].set(title=f'{found["video_classes"][labels[n]]} ({ids[n]})', xticks=[], yticks=[])
        places[1].bar(range(length), drop[n], color=colours(1))
        places[2].plot(strength[n], marker='o', color=colours(2)[1])
    mean, error = drop.mean(axis=0), 1.96 * drop.std(axis=0) / len(drop) ** 0.5
    axes[0, -1].set_axis_off()
    said = f'mean of {len(drop)} clips, 95 % intervals\n\ncorrelation of drop and actions\nin a clip: {like:.2f} in the mean'
    axes[0, -1].text(0.5, 0.4, said, ha='center', va='center', transform=axes[0, -1].transAxes)
    axes[1, -1].bar(range(len(mean)), mean, yerr=error, color=colours(1))
    axes[2, -1].plot(strength.mean(axis=0), marker='o', color=colours(2)[1])
    axes[1, 0].set_ylabel('drop, points')
    axes[2, 0].set_ylabel('facial actions')
    for ax in axes[1:].flat:
        ax.set_xlim(-0.5, drop.shape[1] - 0.5)
    for ax in axes[2]:
        ax.set_xlabel('frame')
    return fig, [
        dict(
            sample=ids[n],
            label=found['video_classes'][labels[n]],
            frame=t,
            drop=v,
            strength=strength[n, t],
        )
        for (n, t), v in np.ndenumerate(drop)
    ]


DRAWN = dict(experts=experts, faces=faces, tasks=tasks, features=features, frames=frames)


def main(argv: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add('config', help='fine-tuning config')
    add('checkpoint')
    add('what', nargs='*', help=f'of {", ".join(DRAWN)}; all that the model has, if not given')
    add('--out', default='work_dirs/inside', help='folder of pictures, tables and collected.npz')
    add('--max-samples', type=int, default=500, help='of each modality, drawn at random')
    add('--device', help='default: a GPU if there is one')
    args = parser.parse_args(argv)
    if not set(args.what) <= set(DRAWN) or args.max_samples < 2:
        parser.error(
            f'{args.what}, --max-samples {args.max_samples}: give names of {", ".join(DRAWN)}, and at least 2 samples'
        )
    with errors_as_messages(config=True):
        os.makedirs(args.out, exist_ok=True)
        found = collected(args)
    for name in args.what or DRAWN:
        try:
            fig, rows = DRAWN[name](found)
        except ValueError as e:
            print(f'{name} cannot be drawn: {e}', file=sys.stderr)
            if args.what:
                sys.exit(2)
            continue
        save(fig, rows, osp.join(args.out, f'{name}.png'))


if __name__ == '__main__':
    main()
