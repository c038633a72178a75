"""What every route is given: one root, how it is served, and the ticking process.

Nothing here is state: all of it can be thrown away with the server, and what is shown is read from ``runs/`` anew.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, Request

from parallelhassnes.api.ticking import Ticker
from parallelhassnes.config import ApiConfig, load_config
from parallelhassnes.control.init import ensure
from parallelhassnes.schedule.context import Context, open_context

type Auth = Literal["none", "token"]


class Site:
    """Args:
    root: the folder with ``runs/``.
    settings: the ``[api]`` section, with what the command line said over it.
    auth: who may use it.
    ticking: keep a ticking process.

    Raises:
        UserError: the configuration cannot be read, or the store's folders cannot be made.
    """

    def __init__(self, root: Path, settings: ApiConfig, auth: Auth, *, ticking: bool) -> None:
        opened = open_context(root)
        ensure(opened)
        self._opened = dataclasses.replace(opened, starts_attempts=False)
        self.layout = opened.layout
        self.settings, self.auth = settings, auth
        self.ticker = Ticker(self.layout.root, settings.tick_sec) if ticking else None

    def context(self) -> Context:
        """The context with the configuration as it is now; passes are left to the ticking process.

        Raises:
            UserError: the configuration cannot be read.
        """
        return dataclasses.replace(self._opened, config=load_config(self.layout.root))

    def poke(self) -> None:
        """Something was changed: have a tick follow."""
        if self.ticker is not None:
            self.ticker.poke()


def site_of(request: Request) -> Site:
    found = request.app.state.site
    assert isinstance(found, Site)  # noqa: S101 - create_app puts it there
    return found


SiteHere = Annotated[Site, Depends(site_of)]
