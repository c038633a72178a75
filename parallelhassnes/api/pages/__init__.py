"""The pages that people look at: rendered by the server, readable without scripts, livelier with them.

``router`` is mounted by ``create_app``. A page shows what a function of ``views`` says; a form posts an operator's
word or a table and is answered by a redirection to the page where its effect is seen. Nothing is kept here.
"""

from fastapi import APIRouter

from parallelhassnes.api.pages import assets, attempt, batch, compare, log_view, login, operate, overview, steps, submit

router = APIRouter(include_in_schema=False)
for module in (assets, login, overview, batch, steps, compare, log_view, attempt, submit, operate):
    router.include_router(module.router)
