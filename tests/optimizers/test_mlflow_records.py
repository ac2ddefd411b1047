"""MLflow's autologging keeps a compile's settings, figures and page, whichever was imported first."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

mlflow = pytest.importorskip("mlflow")
COMPILE = """
import sys
{first}
{second}
rows = [{{"query": f"why is jug {{i}} cool?", "pos": ["Vapour."], "neg": ["Ice.", "Red."]}} for i in range(24)]
groups = radio.load_groups(rows)
settings = radio.TrainingSettings(num_train_epochs=1, learning_rate=3e-5, max_length=32, disable_tqdm=True)
optimizer = radio.GroupFinetune(settings)
optimizer.compile(radio.Rerank(sys.argv[1], "bi-encoder"), trainset=groups[:12], valset=groups[12:])
"""
AUTOLOG = """
import mlflow
mlflow.set_tracking_uri(sys.argv[2])
mlflow.dspy.autolog(log_compiles=True, log_traces=False)
"""
LIBRARY = "import radio_dspy as radio; radio.GroupFinetune"


@pytest.mark.slow
@pytest.mark.parametrize("order", [(AUTOLOG, LIBRARY), (LIBRARY, AUTOLOG)], ids=["autolog first", "library first"])
def test_a_compile_is_kept(order, small, tmp_path):
    store = f"sqlite:///{tmp_path}/runs.db"
    script = COMPILE.format(first=order[0], second=order[1])
    # Of another test MLflow keeps store and experiment there.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    done = subprocess.run(
        [sys.executable, "-c", script, small.name, store], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(store)
    found = client.search_runs(["0"])
    assert len(found) == 1, done.stderr
    run = found[0]
    assert run.info.status == "FINISHED"
    assert run.data.params["settings.learning_rate"] == "3e-05"
    assert {"base.ndcg_at_10", "aligned.ndcg_at_10"} <= set(run.data.metrics)
    files = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert {"gate.json", "report.html", "report.json"} <= files
    (gate,) = json.loads(Path(client.download_artifacts(run.info.run_id, "gate.json")).read_text()).values()
    assert gate["sentence"].startswith("Returned the ")
