"""Reports to test with: a run's folder written by hand."""

from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.distillation.gate.decision import Gate, decide
from radio_dspy.reporting.comparison import Comparison
from radio_dspy.reporting.report import Report
from radio_dspy.reporting.writing import keep_report
from radio_dspy.runs.run import Run

# What a web page must not take for its own, in every place where a text can stand.
EVIL = (
    "</script><script>document.title='owned'</script><!--<script>--> <img src=x onerror=\"document.title='owned'\"> "
    "'\"`${1}{{ 7 * 7 }}{% raw %} \0\x1b &amp; ]]> \u2028 javascript:alert(1) __proto__ $x^2$"
)


def comparison(count=12, text="Yeast dies in hot water.", query="why did the dough {} not rise?"):
    """Questions of which a third each is helped, hurt and unchanged."""
    passages = tuple(Passage(f"p{n}", f"{text} Number {n}.", f"{text[:300]} {n}") for n in range(7))
    requests, base, aligned = [], [], []
    for number in range(count):
        one = RankRequest(
            f"q{number}",
            query.replace("{}", str(number), 1),
            passages,
            (7, 6, 5, 4, 3, 2, 1),
            (text,),
            relevant=frozenset({"p1"}),
        )
        turned = Ranking(one.query, (passages[1], passages[0], *passages[2:]), one.scores)
        before, after = [(one.ranking(), turned), (turned, one.ranking()), (turned, turned)][number % 3]
        requests.append(one)
        base.append(before)
        aligned.append(after)
    return Comparison(requests, {"first_stage": base, "base": base, "aligned": aligned})


def spending(calls, cost, **counts):
    zeros = dict.fromkeys(("cached", "failed", "prompt_tokens", "completion_tokens"), 0)
    return {"calls": calls, "cost": cost, **zeros, **counts}


def report(found, **changes):
    """A report that fits the comparison."""
    values = [0.5, 0.5, 0.4, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1, 0.5]
    gate = decide({0.0: values, 0.5: [one + 0.1 for one in values], 1.0: values}, "nDCG@10 against labels", Gate())
    settings = {
        "metrics": found.means,
        "questions": {"train": 10, "used": 8, "skipped": {"without an answer": 2}, "judged": found.judgement.judged},
        "rationales": {
            **dict.fromkeys(("given", "reused", "written", "cached", "empty", "retried"), 3),
            "refused": 0,
            "useless": {"answer missing": 2},
        },
        "groups": 8,
        "training": {
            "architecture": "bi-encoder",
            "base": "some/model",
            "updates": 4,
            "first_loss": 1.9,
            "last_loss": 1.5,
            "losses": [1.9, 1.7, None, 1.5],
            "runs": 1,
            "stopped": "",
        },
        "left_out": {"contains an answer": 4},
        "relevance": found.judgement.source,
        "seconds": {"retrieval": 1.25, "rationales": 9.0},
        "spending": {
            "rationales": spending(9, 0.0125, cached=2, failed=1, prompt_tokens=70, completion_tokens=30),
            "signals": spending(3, None),
        },
        "gate": gate.as_dict(),
    }
    return Report.from_dict({**settings, **changes})


def finished_run(folder, found=None, **changes):
    """A run folder with all that a compile leaves for its report."""
    found = found or comparison()
    run = Run(folder)
    with run.exclusive():
        run.begin({"epochs": 1})
        run.log("stage", stage="rationales", seconds=9.0, calls=20)
        made = report(found, run_dir=str(folder), **changes)
        run.write("report", made.as_dict())
        keep_report(run, made, found.records)
    return folder


def fits(page):
    """Whether nothing of a page stands beyond its right edge."""
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def violations(page):
    """What axe-core, out of its package, finds wrong with a page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


# WCAG's contrast of an element's text to the first ground behind it that is not transparent.
CONTRAST = """element => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = parts(colour).map((one) => one / 255)
            .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const style = getComputedStyle(element);
    let ground = element;
    while (ground && parts(getComputedStyle(ground).backgroundColor)[3] === 0) ground = ground.parentElement;
    const ink = element.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const pair = [light(ink), light(getComputedStyle(ground).backgroundColor)].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
}"""
