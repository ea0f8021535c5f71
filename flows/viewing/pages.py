"""The pages: rows, one row, and two datasets side by side. Words of rows do nothing in them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.viewing.comparing import Comparison, Difference, difference, is_same, prompt_columns
from flows.viewing.costs import cost_of_row
from flows.viewing.errors import MissingError, ViewError
from flows.viewing.opening import Dataset
from flows.viewing.queries import Choices, Query, choices_of, query_in
from flows.viewing.rendering import TEMPLATES, pieces_of, templates
from flows.viewing.scans import Matches, Scans
from flows.viewing.values import Shown, image_type, json_text, row_shown, shown, value_at

HOSTS = ["127.0.0.1", "localhost"]
"""A page of another name, which somebody else may let lead here, gets nothing."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ROWS_PER_PAGE = 20
PAIRS_PER_PAGE = 10
LONGEST_IN_A_LINE = 40
"""Characters of a value that stands in a line with others."""
PATIENCE = 1.0
"""Seconds that a page waits for rows that are looked for, before it shows what there is."""
SETS = ("changed", "equal", "only_in_one", "only_in_other")


class Viewer:
    """The state of a server: what it shows, and what was looked for in it."""

    def __init__(self, sides: Sequence[Sequence[Dataset]], on: Sequence[str] = ()) -> None:
        """Show the datasets of one place, or of two that are compared.

        Args:
            on: the columns by which the rows of two are of the same prompt; without any, as `prompt_columns` has it.

        Raises:
            ViewError: one can't be read, or there's nothing to compare.
        """
        self.datasets = [dataset for side in sides for dataset in side]
        self._on = on
        self._matches: Scans[Matches] = Scans()
        self._comparisons: Scans[Comparison] = Scans()
        self._choices: dict[int, Choices] = {}
        self.first_side = len(sides[0])
        """How many datasets are of the first place."""
        self.pairs = _pairs(sides) if len(sides) == 2 else []
        # What is wrong is told before anything is served.
        self.datasets[0].table  # noqa: B018 -- the property opens the files, and raises ViewError
        for one, other in self.pairs:
            prompt_columns(self.datasets[one], self.datasets[other], on)

    def choices(self, number: int) -> Choices:
        if number not in self._choices:
            self._choices[number] = choices_of(self.datasets[number].table)
        return self._choices[number]

    def matches(self, number: int, query: Query) -> Matches:
        key = (number, tuple(query.parameters.items()))
        table, steps = self.datasets[number].table, list(self.choices(number).steps)
        return self._matches.get(key, lambda: Matches(table, query, steps))

    def comparison(self, number: int) -> Comparison:
        one, other = (self.datasets[each] for each in self.pairs[number])
        on = prompt_columns(one, other, self._on)
        return self._comparisons.get(number, lambda: Comparison(one.table, other.table, on))

    # Pages

    def rows_page(self, request: Request) -> Response:
        number, query = self._dataset_in(request), query_in(request.query_params.multi_items())
        first, table = whole_number(request, "from"), self.datasets[number].table
        scan, ended = None, True
        if query.is_everything:
            found, places = len(table), range(first, min(first + ROWS_PER_PAGE, len(table)))
        else:
            scan = self.matches(number, query)
            scan.wait(PATIENCE, lambda: scan.has(first + ROWS_PER_PAGE))
            # First: what it finds meanwhile is found too late for this page.
            ended = scan.ended
            found = len(scan)
            places = [int(place) for place in scan.places()[first : first + ROWS_PER_PAGE]]
        rows = [row_shown(place, row) for place, row in zip(places, table.take(places), strict=True)]
        return self._page(
            "rows",
            request,
            number=number,
            query=query,
            kept={"data": number, **query.parameters},
            rows=rows,
            choices=self.choices(number),
            scan=scan,
            ended=ended,
            waits=not ended and len(rows) < ROWS_PER_PAGE,
            found=found,
            total=len(table),
            first=first,
            per_page=ROWS_PER_PAGE,
        )

    def row_page(self, request: Request) -> Response:
        number, query = self._dataset_in(request), query_in(request.query_params.multi_items())
        dataset, place = self.datasets[number], whole_number(request, "at")
        if place >= len(dataset.table):
            raise MissingError(f"there's no row {place:,}: {dataset.name} has {len(dataset.table):,}, counted from 0")
        row = dataset.table.take([place])[0]
        view = row_shown(place, row)
        before, after, position, waits = self._beside(number, query, place)
        return self._page(
            "row",
            request,
            number=number,
            query=query,
            kept={"data": number, **query.parameters},
            row=view,
            cost=cost_of_row(view.steps, dataset.models),
            models=dataset.models,
            before=before,
            after=after,
            position=position,
            waits=waits,
            json=json_text(row),
            total=len(dataset.table),
        )

    def _beside(self, number: int, query: Query, place: int) -> tuple[int | None, int | None, str, bool]:
        """The places of the rows before and after one, among those that are wanted, and where it is among them.

        The last says whether some of that isn't known yet.
        """
        total = len(self.datasets[number].table)
        if query.is_everything:
            return place - 1 if place else None, place + 1 if place + 1 < total else None, f"of {total:,}", False
        scan = self.matches(number, query)
        scan.wait(PATIENCE)
        # Before the places: there may be more by the time that it has ended.
        ended = scan.ended
        places = scan.places()
        there = np.flatnonzero(places == place)
        if not len(there):
            return None, None, f"of {total:,}", not ended
        at = int(there[0])
        said = f"of {total:,}, the {at + 1:,}. of {len(places):,} found{'' if ended else ' so far'}"
        before, after = (int(places[each]) if 0 <= each < len(places) else None for each in (at - 1, at + 1))
        return before, after, said, not ended and after is None

    def compare_page(self, request: Request) -> Response:
        if not self.pairs:
            raise MissingError("one dataset alone was opened; give two to compare them: python -m flows view ONE OTHER")
        number, first = whole_number(request, "pair"), whole_number(request, "from")
        if number >= len(self.pairs):
            raise MissingError(f"there's no pair {number}; there are {len(self.pairs)}")
        wanted = request.query_params.get("show", SETS[0])
        if wanted not in SETS:
            raise ViewError(f"expected one of {', '.join(SETS)} to show, got {wanted!r}")
        comparison = self.comparison(number)
        comparison.wait(PATIENCE)
        ended = comparison.ended
        sides = [self.datasets[each] for each in self.pairs[number]]
        every = getattr(comparison, wanted)
        some = every[first : first + PAIRS_PER_PAGE].tolist()
        return self._page(
            "compare",
            request,
            pair=number,
            sides=sides,
            numbers=self.pairs[number],
            scan=comparison,
            waits=not ended,
            show=wanted,
            counts={name: len(getattr(comparison, name)) for name in SETS},
            pairs=_compared(comparison, sides, wanted, some) if ended else [],
            total=len(every),
            first=first,
            per_page=PAIRS_PER_PAGE,
        )

    def image(self, request: Request) -> Response:
        number, place = self._dataset_in(request), whole_number(request, "at")
        table = self.datasets[number].table
        content = value_at(table.take([place])[0], request.query_params.get("path", "")) if place < len(table) else None
        kind = image_type(content) if isinstance(content, bytes) else ""
        if not isinstance(content, bytes) or not kind:
            raise MissingError("there's no such image")
        return Response(content, media_type=kind)

    def start_page(self, request: Request) -> Response:
        return RedirectResponse("/compare" if self.pairs else "/rows")

    def _dataset_in(self, request: Request) -> int:
        number = whole_number(request, "data")
        if number >= len(self.datasets):
            raise MissingError(f"there's no dataset {number}; there are {len(self.datasets)}")
        return number

    def _page(self, name: str, request: Request, *, status: int = 200, **values: Any) -> Response:
        template = templates().get_template(f"{name}.jinja2")
        words = request.query_params.get("q", "").strip()
        common: dict[str, Any] = {
            "viewer": self,
            "path": request.url.path,
            "parameters": dict(request.query_params),
            "pieces_of": partial(pieces_of, words=words),
            "address": address,
            "image_at": image_address,
            "sets": SETS,
            "in_a_line": LONGEST_IN_A_LINE,
        }
        return HTMLResponse(template.render(**common, **values), status)

    def problem(self, request: Request, error: Exception) -> Response:
        status, message = 500, f"{type(error).__name__}: {error}; the traceback is where this command runs"
        if isinstance(error, ViewError):
            status, message = 404 if isinstance(error, MissingError) else 400, str(error)
        elif isinstance(error, HTTPException):
            status, message = error.status_code, f"{request.url.path}: {error.detail}"
        return self._page("problem", request, status=status, message=message)


@dataclass(frozen=True)
class Compared:
    """Two rows of one prompt, or one alone."""

    places: Sequence[int | None]
    prompts: Sequence[Shown]
    differences: Sequence[Difference]
    same: Sequence[Shown]
    """What both have alike, or what the one has."""


def _pairs(sides: Sequence[Sequence[Dataset]]) -> list[tuple[int, int]]:
    """Which datasets of two places are compared: those of the same name, or the only ones. Raises ViewError."""
    one, other = sides
    if len(one) == len(other) == 1:
        return [(0, 1)]
    named = {dataset.name: len(one) + place for place, dataset in enumerate(other)}
    found = [(place, named[dataset.name]) for place, dataset in enumerate(one) if dataset.name in named]
    if not found:
        names = [", ".join(each.name for each in side) for side in sides]
        raise ViewError(f"no dataset of the first ({names[0]}) has the name of one of the second ({names[1]})")
    return found


def _compared(comparison: Comparison, sides: Sequence[Dataset], wanted: str, some: Sequence[Any]) -> list[Compared]:
    if wanted.startswith("only"):
        side = SETS.index(wanted) - 2
        rows = sides[side].table.take(some)
        alone = [[place if side == each else None for each in (0, 1)] for place in some]
        return [
            Compared(
                places,
                [shown(row[name], name) for name in comparison.on],
                [],
                [shown(row[name], name) for name in comparison.compared],
            )
            for places, row in zip(alone, rows, strict=True)
        ]
    ones, others = (sides[side].table.take([pair[side] for pair in some]) for side in (0, 1))
    found: list[Compared] = []
    for pair, one, other in zip(some, ones, others, strict=True):
        columns = [*comparison.compared, *(name for name in ("model_name",) if name in one and name in other)]
        differ = [name for name in columns if not is_same(one[name], other[name])]
        found.append(
            Compared(
                pair,
                [shown(one[name], name) for name in comparison.on],
                [difference(name, one[name], other[name]) for name in differ],
                [shown(one[name], name) for name in columns if name not in differ],
            )
        )
    return found


# Pages' parts


def whole_number(request: Request, name: str) -> int:
    """A parameter that is a whole number, 0 where it's not given. Raises ViewError."""
    given = request.query_params.get(name) or "0"
    if not re.fullmatch(r"[0-9]{1,12}", given):
        raise ViewError(f"expected a whole number as {name!r}, got {given!r}")
    return int(given)


def address(path: str, /, *parts: Mapping[str, Any], **parameters: Any) -> str:
    """A page's address. Parameters that are None or nothing are left out."""
    given = {name: value for part in (*parts, parameters) for name, value in part.items()}
    said = urlencode({name: value for name, value in given.items() if value not in (None, "", 0)})
    return f"{path}?{said}" if said else path


def image_address(row: Mapping[str, Any], path: str) -> str:
    """Where the image at a path in a row is: `row` is the address's part of that row."""
    return address("/image", row, path=path)


# The application


def viewer_app(viewer: Viewer) -> ASGIApp:
    """The pages as an ASGI application, for requests to this machine's own names alone."""

    def page(make: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            return await run_in_threadpool(make, request)

        return respond

    async def style(_: Request) -> Response:
        return FileResponse(TEMPLATES / "style.css")

    async def nothing(_: Request) -> Response:
        return Response(status_code=204)

    async def problem(request: Request, error: Exception) -> Response:
        return viewer.problem(request, error)

    routes = [
        Route("/", page(viewer.start_page)),
        Route("/rows", page(viewer.rows_page)),
        Route("/row", page(viewer.row_page)),
        Route("/compare", page(viewer.compare_page)),
        Route("/image", page(viewer.image)),
        Route("/style.css", style),
        Route("/favicon.ico", nothing),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    handlers = dict.fromkeys((ViewError, HTTPException, Exception), problem)
    return Guarded(Starlette(routes=routes, middleware=[hosts], exception_handlers=handlers))


class Guarded:
    """Adds to every response what keeps a browser from doing anything with it but showing it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_guarded)
