"""Takes the README's screenshots from the results of the last `make run`.

    python docs/make_screenshots.py --home .editorbot --output docs

Starts the Dagster UI (without its daemon, so that nothing is run), MLflow and the rating page on free ports of this
machine, opens their pages in the Chromium that is installed, and stops everything. Nothing in the home is changed
except that the pair on the rating page is rendered.
"""

import argparse
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, TimeoutError, sync_playwright

from assets.resources.registry import registry
from assets.resources.tracking import mlflow_server_command
from editorbot_core.base.console import run_command, say
from editorbot_core.base.errors import EditorBotError, ParameterError
from editorbot_core.base.files import write_bytes

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
WIDTH, HEIGHT, GRAPH_HEIGHT = 1440, 900, 1150
MAX_BYTES = 400_000
READY_AFTER_S = 120.0
PATIENCE_MS = 60_000
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# What a user of MLflow's pages clicks away or chooses once: the mode for training, the assistant, a dialogue.
MLFLOW_CHOICES = {
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    "mlflow.assistant.panelOpen_v1": "false",
    "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
}
DAGSTER_CHOICES = {"dagster-nav-collapsed": "true"}
# Measured alike in all policies, and how often the reward model is right on songs it has not seen.
METRIC_COLUMNS = (
    "rm/acc_heldout",
    "total_reward",
    "learned_reward",
    "dense_reward",
    "kl_ref_unit",
    "edit/joins_per_song",
)
CHARTS = "^(total_reward|learned_reward|dense_reward|policy_loss|value_loss|entropy)$"


@dataclass(frozen=True)
class Services:
    """Addresses of the three pages, without a slash at the end, and the key of the rating page."""

    dagster: str
    mlflow: str
    rating: str
    token: str


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_AFTER_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EditorBotError(f"{address}: the server ended with status {process.returncode}; see {log}")
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    raise EditorBotError(f"{address}: no answer after {READY_AFTER_S:g} s; see {log}")


def _stop(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    for stop_signal, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, stop_signal)
        deadline = time.monotonic() + patience_s
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            time.sleep(0.1)


@contextmanager
def running_services(home: Path, workspace: Path) -> Iterator[Services]:
    """Start the three servers on `home`, wait until they answer, and stop them at the end."""
    token = secrets.token_urlsafe(16)
    ports = {name: _free_port() for name in ("dagster", "mlflow", "rating")}
    binaries = Path(sys.executable).parent
    commands: dict[str, Sequence[str]] = {
        "dagster": (
            *(str(binaries / "dagster-webserver"), "--workspace", str(workspace)),
            *("--host", HOST, "--port", str(ports["dagster"])),
        ),
        "mlflow": mlflow_server_command(home, host=HOST, port=ports["mlflow"]),
        "rating": (str(binaries / "editorbot"), "rate", "--port", str(ports["rating"])),
    }
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home / "dagster"),
        "EDITORBOT_HOME": str(home),
        "EDITORBOT_RATING_TOKEN": token,
    }
    logs = home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    processes: dict[str, subprocess.Popen[bytes]] = {}
    addresses = {name: f"http://{HOST}:{port}" for name, port in ports.items()}
    try:
        for name, command in commands.items():
            with (logs / f"screenshots-{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        for name, process in processes.items():
            _wait_until_ready(addresses[name], process, logs / f"screenshots-{name}.log")
        yield Services(**addresses, token=token)
    finally:
        _stop(list(processes.values()))


def _click_if_there(target: Locator, *, patience_ms: int = 2_000) -> None:
    """Dismiss what some versions show and others do not."""
    with suppress(TimeoutError):
        target.first.click(timeout=patience_ms)


def _settle(page: Page, ms: int = 1_500) -> None:
    """Wait for requests to end, then for drawings and animations, which announce nothing."""
    # A page that keeps asking its server has no end of requests.
    with suppress(TimeoutError):
        page.wait_for_load_state("networkidle", timeout=3_000)
    page.wait_for_timeout(ms)


def asset_graph(page: Page, services: Services) -> None:
    """Every asset with its state."""
    page.goto(f"{services.dagster}/asset-groups")
    page.get_by_text("Materialize all").wait_for()
    _settle(page)
    page.keyboard.press("Alt+KeyE")
    page.get_by_text("policy_evaluation").first.wait_for()
    _settle(page)
    # Loaded again with its groups open, the graph is fitted to the width of the window; it is higher than that.
    page.set_viewport_size({"width": WIDTH, "height": GRAPH_HEIGHT})
    page.reload()
    page.get_by_text("policy_evaluation").first.wait_for()
    _settle(page, 2_500)
    page.mouse.move(5, GRAPH_HEIGHT - 5)


def asset_page(page: Page, services: Services) -> None:
    """The evaluation's page: latest materialization, checks and what it says of itself."""
    page.goto(f"{services.dagster}/assets/policy_evaluation")
    page.get_by_text("Latest materialization").first.wait_for()
    _settle(page)
    # What was measured stands below these.
    for section in ("Status", "Description", "Columns"):
        _click_if_there(page.get_by_text(section, exact=True))
    _settle(page, 800)


def asset_plot(page: Page, services: Services) -> None:
    """The evaluation's plot, opened from its page."""
    page.goto(f"{services.dagster}/assets/policy_evaluation")
    page.get_by_role("row", name="plot").get_by_text("[Show Markdown]").first.click()
    page.get_by_role("dialog").locator("img").first.wait_for()
    _settle(page, 800)


def asset_checks(page: Page, services: Services) -> None:
    """The checks of the evaluation."""
    page.goto(f"{services.dagster}/assets/policy_evaluation?view=checks")
    page.get_by_text("Execute").first.wait_for()
    _settle(page)


def _mlflow(services: Services, path: str, body: dict[str, object] | None = None) -> dict:
    request = urllib.request.Request(
        f"{services.mlflow}/api/2.0/mlflow/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def _experiment_id(services: Services) -> str:
    name = quote(registry().experiment)
    return _mlflow(services, f"experiments/get-by-name?experiment_name={name}")["experiment"]["experiment_id"]


def _latest_runs(services: Services) -> dict[str, dict]:
    """The newest run of every name."""
    found = _mlflow(services, "runs/search", {"experiment_ids": [_experiment_id(services)], "max_results": 200})
    latest: dict[str, dict] = {}
    for run in found.get("runs", []):
        latest.setdefault(run["info"]["run_name"], run)
    return latest


def mlflow_runs(page: Page, services: Services) -> None:
    """The runs of the experiment with columns for what was measured."""
    page.goto(f"{services.mlflow}/#/experiments/{_experiment_id(services)}/runs")
    page.get_by_text("matching run").wait_for()
    _settle(page)
    page.get_by_role("button", name="Columns").click()
    search = page.get_by_placeholder("Search columns")
    # The first three are shown unless one clicks them away; a click changes a column.
    for name in ("Dataset", "Source", "Models", *METRIC_COLUMNS):
        search.fill(name)
        _click_if_there(page.locator(f"xpath=//span[strong and normalize-space(.)='{name}']"))
        page.wait_for_timeout(300)
    page.keyboard.press("Escape")
    _settle(page, 2_500)


def mlflow_charts(page: Page, services: Services) -> None:
    """The learning curves of all runs over each other."""
    page.goto(f"{services.mlflow}/#/experiments/{_experiment_id(services)}/runs?compareRunsMode=CHART")
    page.get_by_text("matching run").wait_for()
    page.get_by_placeholder("Search metric charts").fill(CHARTS)
    _settle(page, 4_000)


def mlflow_compare(page: Page, services: Services) -> None:
    """PPO beside DPO: settings and measurements of both runs."""
    runs = _latest_runs(services)
    ids = [runs[name]["info"]["run_id"] for name in ("ppo_policy", "dpo_policy") if name in runs]
    if len(ids) < 2:
        raise EditorBotError("no runs of both policies in MLflow; run `make run` first")
    experiments = quote(json.dumps([_experiment_id(services)]))
    page.goto(f"{services.mlflow}/#/compare-runs?runs={quote(json.dumps(ids))}&experiments={experiments}")
    page.get_by_text("Run details").wait_for()
    _settle(page)
    for section in ("Visualizations", "Parameters"):
        _click_if_there(page.get_by_text(section, exact=True))
    page.get_by_text("Metrics", exact=True).last.scroll_into_view_if_needed()
    _settle(page, 800)


def mlflow_models(page: Page, services: Services) -> None:
    """The versions of the policy and their aliases."""
    page.goto(f"{services.mlflow}/#/models/{quote(registry().policy_name)}")
    _click_if_there(page.get_by_role("button", name="Try it now"))
    page.get_by_text("Version 1").first.wait_for()
    _settle(page)


def rating_page(page: Page, services: Services) -> None:
    """A pair that has been listened to, about to be answered."""
    page.goto(f"{services.rating}/?token={services.token}")
    page.locator("#view-pair").wait_for(state="visible")
    for side in "ab":
        page.locator(f"[data-side={side}] .seek").fill("12")
        page.locator(f"[data-side={side}] .play").click()
        page.locator(f"[data-side={side}] .heard").wait_for(state="visible")
    page.get_by_role("button", name="B is better").click()
    page.mouse.move(5, HEIGHT - 5)


Prepare = Callable[[Page, Services], None]
SCREENSHOTS: dict[str, tuple[Prepare, dict[str, str]]] = {
    "dagster_assets": (asset_graph, DAGSTER_CHOICES),
    "dagster_evaluation": (asset_page, DAGSTER_CHOICES),
    "dagster_plot": (asset_plot, DAGSTER_CHOICES),
    "dagster_checks": (asset_checks, DAGSTER_CHOICES),
    "mlflow_runs": (mlflow_runs, MLFLOW_CHOICES),
    "mlflow_charts": (mlflow_charts, MLFLOW_CHOICES),
    "mlflow_compare": (mlflow_compare, MLFLOW_CHOICES),
    "mlflow_models": (mlflow_models, MLFLOW_CHOICES),
    "rating_page": (rating_page, {}),
}


def small_png(content: bytes) -> bytes:
    """The picture with as many colours as fit into `MAX_BYTES`.

    Raises:
        EditorBotError: If it does not fit with 32 colours.
    """
    n_colours = 256
    while len(content) > MAX_BYTES:
        if n_colours < 32:
            raise EditorBotError(f"a screenshot has {len(content)} bytes; at most {MAX_BYTES} are kept")
        picture = Image.open(io.BytesIO(content)).convert("RGB").quantize(n_colours)
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        content, n_colours = buffer.getvalue(), n_colours // 2
    return content


def take(browser: Browser, services: Services, name: str, output: Path) -> None:
    """Prepare the page called `name` in a fresh browser profile and write its picture to `output`."""
    prepare, choices = SCREENSHOTS[name]
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", locale="en-GB", reduced_motion="reduce"
    )
    script = "".join(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)});" for key, value in choices.items())
    context.add_init_script(script)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    try:
        prepare(page, services)
        content = small_png(page.screenshot())
    finally:
        context.close()
    path = output / f"{name}.png"
    write_bytes(path, content)
    say(f"  {path} ({len(content) / 1000:.0f} kB)")


def copy_evaluation_plot(home: Path, output: Path) -> None:
    """Copy the quality plot of the last evaluation that MLflow keeps to `output`."""
    plots = sorted((home / "mlflow-artifacts").glob("*/artifacts/plots/quality.png"), key=lambda p: p.stat().st_mtime)
    if not plots:
        raise ParameterError(f"{home} holds no evaluation; run `make run` first")
    path = output / "evaluation_quality.png"
    write_bytes(path, plots[-1].read_bytes())
    say(f"  {path}")


def main(argv: Sequence[str] | None = None) -> int:
    """Take the screenshots that were asked for; return the exit status."""
    parser = argparse.ArgumentParser(description="Take the README's screenshots from the last `make run`.")
    parser.add_argument("--home", type=Path, default=Path(".editorbot"), help="folder of local results")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="where the pictures go")
    parser.add_argument("--workspace", type=Path, default=ROOT / "workspace.yaml", help="Dagster's code location")
    parser.add_argument("--only", choices=list(SCREENSHOTS), action="append", help="take only this one (repeatable)")
    arguments = parser.parse_args(argv)

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def body() -> None:
        # Ended by a signal, it stops its servers too.
        signal.signal(signal.SIGTERM, interrupt)
        home = arguments.home.resolve()
        if not (home / "mlflow.db").is_file() or not (home / "dagster").is_dir():
            raise ParameterError(f"{home} holds no results; run `make run` first")
        chromium = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
        if chromium is None:
            raise ParameterError(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)})")
        arguments.output.mkdir(parents=True, exist_ok=True)
        with running_services(home, arguments.workspace.resolve()) as services, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
            for name in arguments.only or SCREENSHOTS:
                take(browser, services, name, arguments.output)
            browser.close()
        copy_evaluation_plot(home, arguments.output)

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
