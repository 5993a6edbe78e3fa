"""The page: a study's verdict first, then what it rests on; one file that needs nothing else."""

import importlib.resources
import pathlib

from divco_tf.analysis.report.effects import ACCURACY, LIKELIHOOD, MEASURES, effects, headline
from divco_tf.analysis.report.markup import escaped, paragraph
from divco_tf.analysis.report.sections import Effects, Records, sections
from divco_tf.analysis.report.study import SPLITS, Study, read_study

_PRINTED = """<script>
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));
</script>
"""


def report(
    folder: str | pathlib.Path,
    *,
    baseline: str | None = None,
    data_dir: str | None = None,
    latencies: Records = (),
    published: Records = (),
    command: str = "",
) -> str:
    """The report on a sweep or a run, as HTML: the same text for the same input.

    Args:
      folder: of a sweep, of which results.jsonl, judged/ and sweep.json are read; or a model_dir.
      baseline: the name of the arm that others are compared with. None: the plainest of those with S=1, or else of all.
      data_dir: where the dataset lies, for pictures of images, and for a run's answers.
      latencies: of `costs.read_latencies`.
      published: "rows" of the paper's tables.
      command: that made the page.

    Raises:
      InputError: neither a sweep nor a run, damaged files, or no arm of that name.
    """
    study = read_study(folder, baseline=baseline, data_dir=data_dir)
    return page(study, data_dir=data_dir, latencies=latencies, published=published, command=command)


def page(
    study: Study,
    *,
    data_dir: str | None = None,
    latencies: Records = (),
    published: Records = (),
    command: str = "",
) -> str:
    """The report on a study; the other arguments are those of `report`."""
    found = {measure.name: effects(study, measure) for measure in MEASURES}
    parts = sections(study, found, data_dir=data_dir, latencies=latencies, published=published, command=command)
    links = "".join(f'<a href="#{section.name}">{escaped(section.title)}</a>' for section in parts)
    css = (importlib.resources.files(__package__) / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(study.name)}</title>\n"
        '<link rel="icon" href="data:,">\n'  # else a browser asks the server for one
        f"<style>\n{css}</style>\n</head>\n<body>\n{_head(study, found)}<nav>{links}</nav>\n"
        f"<main>\n{''.join(section.html() for section in parts)}</main>\n{_PRINTED}</body>\n</html>\n"
    )


def _head(study: Study, found: Effects) -> str:
    what = " and ".join(dict.fromkeys(f"{task.backbone} on {task.dataset}" for task in study.tasks))
    likelihood = found[LIKELIHOOD.name]
    also = f"By log-likelihood: {_inside(headline(study, likelihood))}" if likelihood else ""
    facts = (f"<div><dt>{key}</dt><dd>{escaped(value)}</dd></div>" for key, value in _facts(study).items())
    parts = [
        paragraph(" · ".join(filter(None, [study.name, what])), kind="eyebrow"),
        f"<h1>{'Does it pay?' if any(found.values()) else 'How good is it?'}</h1>\n",
        paragraph(headline(study, found[ACCURACY.name]), kind="verdict"),
        paragraph(also, kind="also") if also else "",
        f'<dl class="facts">{"".join(facts)}</dl>',
    ]
    return f"<header>{''.join(parts)}</header>\n"


def _facts(study: Study) -> dict[str, str]:
    cells = f"{sum(len(arm.results) for arm in study.arms)} done"
    cells += f", {len(study.failed)} failed" if study.failed else ""
    if not study.arms:
        return {"Cells": cells}
    images = sorted({len(judged.labels) for arm in study.arms for judged in arm.judged})
    seeds = sorted({len(arm.results) for arm in study.arms})
    told = f"{' and '.join(f'{count:,}' for count in images)} {SPLITS[study.split]}" if images else SPLITS[study.split]
    return {
        **({"Compared with": study.baseline} if len(study.arms) > 1 else {}),
        "Images": told,
        "Training images": ", ".join(dict.fromkeys(task.amount.removesuffix(" images") for task in study.tasks)),
        "Seeds an arm": " to ".join(dict.fromkeys(map(str, (seeds[0], seeds[-1])))),
        "Cells": cells,
    }


def _inside(sentence: str) -> str:
    """A sentence behind a colon; names of arms keep their letters."""
    return sentence[0].lower() + sentence[1:] if sentence.startswith(("All ", "None ", "Of ")) else sentence
