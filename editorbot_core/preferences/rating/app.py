"""The rating page: a listener compares two edits of one song, blind and in random order.

The browser asks for a pair (`GET /api/pair`), receives two audio ids in the order in which it shows them as A and B,
and sends its answer with both ids (`POST /api/answers`). The ids tell the server which edit was shown where, so
that it need not remember the order: an answer may be sent again, even after a restart, and is stored once.
"""

import re
import secrets
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from editorbot_core.base.errors import EditorBotError, FormatError, ParameterError, StoreError
from editorbot_core.editing.edits import EditDecisionList
from editorbot_core.preferences.preference import EditPair, Preference, utc_now
from editorbot_core.preferences.rating.guard import SECURITY_HEADERS, Guard, check_token, error_response
from editorbot_core.preferences.rating.queue import PairQueue, edit_key
from editorbot_core.preferences.rating.renders import PlayableEdit, RenderCache, song_name
from editorbot_core.preferences.store import PreferenceStore

STATIC_FILES = {
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_MAX_NOTICES = 3
_AUDIO_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _visible(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("a name has visible characters only and no space at its ends")
    return name


RaterName = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_visible)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
AnswerId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
_RATER = TypeAdapter(RaterName, config=ConfigDict(strict=True))


class _Body(BaseModel):
    """The body of a request: exact types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class AnswerBody(_Body):
    """One answer as the browser sends it.

    Attributes:
        answer_id: 128 random bits from the browser; an answer that is sent again has the same id.
        pair: Key of the pair.
        audio_a: The audio that was shown as A.
        audio_b: The audio that was shown as B.
        verdict: Which is better.
        strength: 1 slightly, 2 clearly, 3 much; 0 if and only if the verdict is "same".
        rater: Name of the listener.
    """

    answer_id: AnswerId
    pair: Digest
    audio_a: Digest
    audio_b: Digest
    verdict: Literal["a", "b", "same"]
    strength: Annotated[int, Field(ge=0, le=3)]
    rater: RaterName

    @model_validator(mode="after")
    def _strength_fits(self) -> "AnswerBody":
        if (self.strength == 0) != (self.verdict == "same"):
            raise ValueError("strength is 0 for the verdict `same` and 1-3 for `a` and `b`")
        return self


class SkipBody(_Body):
    """A pair that the listener does not want to answer."""

    pair: Digest
    rater: RaterName


def to_preference(answer: AnswerBody, pair: EditPair) -> Preference:
    """The answer in terms of the pair's own a and b.

    Raises:
        HTTPException: 409 if the two audio ids are not those of the pair.
    """
    id_a, id_b = edit_key(pair.a), edit_key(pair.b)
    if (answer.audio_a, answer.audio_b) == (id_a, id_b):
        swapped = False
    elif (answer.audio_a, answer.audio_b) == (id_b, id_a):
        swapped = True
    else:
        raise HTTPException(409, "the two edits that were heard are not those of this pair; load the page again")
    prefers_shown_a = {"a": 1.0, "same": 0.5, "b": 0.0}[answer.verdict]
    return Preference(
        a=pair.a,
        b=pair.b,
        label=1.0 - prefers_shown_a if swapped else prefers_shown_a,
        strength=answer.strength,
        confidence=1.0,
        rater=answer.rater,
        source="person",
        answer_id=answer.answer_id,
        created_at=utc_now(),
    )


class _Session:
    """State shared by the routes: store, queue, renders, and the pair that is rendered ahead."""

    def __init__(
        self, store: PreferenceStore, queue: PairQueue, renders: RenderCache, swap: Callable[[], bool]
    ) -> None:
        self.store = store
        self.queue = queue
        self.renders = renders
        self.swap = swap
        self._store_lock = threading.Lock()
        self._ahead = ThreadPoolExecutor(max_workers=1, thread_name_prefix="render-ahead")
        self._audio: dict[str, EditDecisionList] = {}
        self._audio_lock = threading.Lock()
        for preference in store.stream(source="person"):
            queue.note_answer(preference)

    def progress(self, rater: str) -> dict[str, int]:
        return {
            "yours": self.queue.n_answers(rater),
            "everybody": self.queue.n_answers(),
            "waiting": len(self.queue.waiting(rater)),
        }

    def next_pair(self, rater: str) -> dict[str, Any]:
        """The next pair for `rater`, or the reason why there is none."""
        notices: list[str] = []
        try:
            self.queue.refresh()
        except FormatError as error:
            notices.append(f"The file of pairs cannot be read ({error}). Run `make run` to write it again.")
        waiting = self.queue.waiting(rater)
        for place, (key, pair) in enumerate(waiting):
            try:
                rendered = self.renders.get(pair.a, pair.b)
            except EditorBotError as error:
                message = f"A pair was left out: {error}"
                if message not in notices:
                    notices.append(message)
                continue
            self.queue.show(key)
            with self._audio_lock:
                self._audio.update({rendered[0].audio_id: pair.a, rendered[1].audio_id: pair.b})
            if place + 1 < len(waiting):
                self._ahead.submit(self._render_ahead, waiting[place + 1].pair)
            shown = rendered[::-1] if self.swap() else rendered
            return {
                "state": "pair",
                "pair": key,
                "song": song_name(pair.a),
                "source_s": round(pair.a.grid.duration, 3),
                "target_s": round(pair.a.target_duration_s, 3),
                "a": _describe(shown[0]),
                "b": _describe(shown[1]),
                "notices": notices[:_MAX_NOTICES],
                "progress": self.progress(rater),
            }
        state = "unplayable" if waiting else "finished" if len(self.queue) else "empty"
        return {"state": state, "notices": notices[:_MAX_NOTICES], "progress": self.progress(rater)}

    def _render_ahead(self, pair: EditPair) -> None:
        try:
            self.renders.get(pair.a, pair.b)
        except EditorBotError:
            # The same error is raised, and shown, when the pair is requested.
            return

    def answer(self, body: AnswerBody) -> dict[str, Any]:
        """Store an answer; returns after the database has committed it."""
        pair = self.queue.get(body.pair)
        if pair is None:
            self.queue.refresh()
            pair = self.queue.get(body.pair)
        if pair is None:
            raise HTTPException(410, "this pair is no longer waiting for an answer; the next one follows")
        preference = to_preference(body, pair)
        with self._store_lock:
            # A retry is answered from memory, even if a later run has given the same edits other scores.
            try:
                known = self.queue.knows_answer(preference)
            except ParameterError as error:
                raise HTTPException(409, str(error)) from error
            if not known:
                if self.queue.is_answered(body.rater, body.pair):
                    raise HTTPException(409, f"{body.rater} has answered this pair already; the first answer counts")
                self.store.add(preference)
                self.queue.note_answer(preference)
        return {"stored": body.answer_id, "progress": self.progress(body.rater)}

    def skip(self, body: SkipBody) -> dict[str, Any]:
        self.queue.skip(body.rater, body.pair)
        return {"skipped": body.pair, "progress": self.progress(body.rater)}

    def audio_path(self, audio_id: str) -> Path:
        """The file of an audio id that was sent to a browser; rendered again if it has been deleted since."""
        with self._audio_lock:
            edl = self._audio.get(audio_id)
        if edl is None:
            raise HTTPException(404, "there is no such audio; load the page again")
        if not self.renders.audio_path(audio_id).is_file():
            self.renders.get(edl)
        return self.renders.audio_path(audio_id)


def _describe(rendered: PlayableEdit) -> dict[str, Any]:
    return {
        "audio": rendered.audio_id,
        "duration_s": rendered.duration_s,
        "joins_s": list(rendered.joins_s),
        "peaks": list(rendered.peaks),
    }


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'body'}: {fault['msg']}"[:300]


def create_app(
    *,
    store: PreferenceStore,
    queue: PairQueue,
    renders: Path | str,
    token: str,
    allowed_hosts: Collection[str] = ("127.0.0.1", "localhost"),
    swap: Callable[[], bool] | None = None,
) -> FastAPI:
    """The web application of the rating page.

    Args:
        store: Store of the answers.
        queue: Pairs that wait to be rated.
        renders: Folder for rendered audio; may be deleted at any time.
        token: Key that a browser must send in the address (`/?token=...`); see `check_token`.
        allowed_hosts: Host names under which the page may be reached, without port.
        swap: Decides at random whether the two edits of a pair are shown in reverse; by default a fair coin.
    """
    check_token(token)
    session = _Session(
        store, queue, RenderCache(renders), swap if swap is not None else lambda: secrets.randbelow(2) == 1
    )
    app = FastAPI(
        title="EditorBot rating page", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.add_middleware(Guard, token=token, allowed_hosts=tuple(allowed_hosts))

    @app.exception_handler(HTTPException)
    async def refused(_request: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, str(error.detail))

    @app.exception_handler(ValidationError)
    async def malformed(_request: Request, error: ValidationError) -> JSONResponse:
        return error_response(422, _first_fault(error))

    @app.exception_handler(EditorBotError)
    async def foreseen(_request: Request, error: EditorBotError) -> JSONResponse:
        return error_response(503 if isinstance(error, StoreError) else 500, str(error))

    @app.exception_handler(Exception)
    async def fault(_request: Request, _error: Exception) -> JSONResponse:
        response = error_response(500, "the server met a fault; its log has the details")
        response.headers.update(SECURITY_HEADERS)
        return response

    @app.api_route("/", methods=["GET", "HEAD"])
    async def page() -> Response:
        return Response(_static("index.html"), media_type="text/html; charset=utf-8")

    @app.api_route("/static/{name}", methods=["GET", "HEAD"])
    async def static(name: str) -> Response:
        if name not in STATIC_FILES:
            raise HTTPException(404, "there is no such file")
        return Response(_static(name), media_type=STATIC_FILES[name], headers={"cache-control": "no-cache"})

    @app.get("/api/pair")
    async def pair(request: Request) -> JSONResponse:
        names = request.query_params.multi_items()
        if [key for key, _ in names] != ["rater"]:
            raise HTTPException(422, "exactly one parameter is expected: rater")
        rater = _RATER.validate_python(names[0][1])
        return JSONResponse(await run_in_threadpool(session.next_pair, rater))

    @app.post("/api/answers", status_code=201)
    async def answer(request: Request) -> JSONResponse:
        body = AnswerBody.model_validate_json(await request.body())
        return JSONResponse(await run_in_threadpool(session.answer, body), status_code=201)

    @app.post("/api/skips")
    async def skip(request: Request) -> JSONResponse:
        body = SkipBody.model_validate_json(await request.body())
        return JSONResponse(await run_in_threadpool(session.skip, body))

    @app.api_route("/audio/{audio_id}", methods=["GET", "HEAD"])
    async def audio(audio_id: str) -> Response:
        if not _AUDIO_ID.fullmatch(audio_id):
            raise HTTPException(404, "there is no such audio; load the page again")
        path = await run_in_threadpool(session.audio_path, audio_id)
        return FileResponse(path, media_type="audio/wav", headers={"cache-control": "private, max-age=86400"})

    return app


def _static(name: str) -> bytes:
    return (files("editorbot_core.preferences.rating") / "static" / name).read_bytes()
