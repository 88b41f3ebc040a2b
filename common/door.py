"""How other machines find a page that this one serves, and the password that they are asked for once.

Starlette and segno come with requirements-page.txt, so they are imported where they are needed."""

import asyncio
import hashlib
import hmac
import html
import socket
from urllib.parse import parse_qs

COOKIE = "dance-studio"
REMEMBERED = 90 * 24 * 3600  # seconds for which a browser keeps the cookie
LONGEST_FORM = 4000  # bytes of a password that somebody sends; no more are read
GUESS_SECONDS = 1  # between two wrong passwords, whoever sends them
OPEN = "/gradio_api/startup-events"  # what Gradio asks of its own page when it starts; it shows nothing
ANY = ("0.0.0.0", "::")  # a server that listens there is reached under each address of its machine


class Door:
    """An ASGI application that lets a request through to `app` if its browser has said the password once.

    password: a text; form: the HTML of the page that asks for it, in which {message} stands for what went wrong. The
    cookie is made from the password with scrypt. So it is good for as long as the password is, also after a new start.
    """

    def __init__(self, app, password, form):
        self._app, self._password, self._form, self._guesses = app, password.encode(), form, asyncio.Lock()
        self._key = hashlib.scrypt(self._password, salt=COOKIE.encode(), n=2 ** 14, r=8, p=1).hex()

    async def __call__(self, scope, receive, send):
        from starlette.requests import HTTPConnection, Request
        from starlette.responses import HTMLResponse, RedirectResponse, Response

        if scope["type"] not in ("http", "websocket") or scope["path"] == OPEN or hmac.compare_digest(
                HTTPConnection(scope).cookies.get(COOKIE, "").encode(), self._key.encode()):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close"})
        if (scope["method"], scope["path"]) == ("POST", "/login"):
            if await self._is_right(Request(scope, receive)):
                answer = RedirectResponse("/", status_code=303)
                answer.set_cookie(COOKIE, self._key, max_age=REMEMBERED, httponly=True, samesite="lax")
            else:
                answer = HTMLResponse(self._page("That is not the password. Try again."), 401)
        elif scope["method"] == "GET" and scope["path"] in ("/", "/login"):
            answer = HTMLResponse(self._page(""), 401)
        else:
            answer = Response("say the password first", 401, media_type="text/plain")
        await answer(scope, receive, send)

    async def _is_right(self, request):
        """Whether the form that was sent has the password. Wrong ones are answered one after the other, slowly."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_FORM:
                return False
        given = parse_qs(body.decode(errors="replace"), keep_blank_values=True).get("password", [""])[0]
        if hmac.compare_digest(given.encode(), self._password):
            return True
        async with self._guesses:
            await asyncio.sleep(GUESS_SECONDS)
        return False

    def _page(self, message):
        return self._form.replace("{message}", html.escape(message))


def address_for_others(host):
    """The name under which other machines reach a server that listens on `host`; None where this machine is in no
    network. To connect a UDP socket sends nothing: it only asks which of the own addresses would be used."""
    if host not in ANY:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # an address for documentation, which nobody has
        except OSError:
            return None
        return asking.getsockname()[0]


def qr_code(url):
    """A QR code of an address, a segno.QRCode: it draws itself on a terminal (`terminal`) and as SVG (`svg_inline`)."""
    import segno

    return segno.make(url, micro=False)
