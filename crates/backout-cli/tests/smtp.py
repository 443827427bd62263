"""A mail server on loopback for the tests: takes mail, over TLS and from users it knows where told to, and keeps each
mail as a file.

Usage: smtp.py MAILS [--tls CERT KEY] [--wrapped] [--user NAME PASSWORD] [--busy N]
Prints its port, and serves until its standard input ends. --busy refuses the first N mails for the time being.
"""

import argparse
import asyncio
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("mails", type=pathlib.Path)
parser.add_argument("--tls", nargs=2)
parser.add_argument("--wrapped", action="store_true")
parser.add_argument("--user", nargs=2)
parser.add_argument("--busy", type=int, default=0)
args = parser.parse_args()

context = None
if args.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*args.tls)


class Keeper:
    """Keeps what it is sent."""

    def __init__(self):
        self.busy = args.busy
        self.number = 0

    async def handle_DATA(self, server, session, envelope):
        if self.busy:
            self.busy -= 1
            return "451 busy, try again later"
        self.number += 1
        text = f"To-Envelope: {envelope.rcpt_tos}\nTls: {session.ssl is not None or args.wrapped}\n"
        (args.mails / f"{self.number}.eml").write_bytes(text.encode() + envelope.content)
        return "250 kept"


def known(server, session, envelope, mechanism, data):
    sent = [data.login.decode(), data.password.decode()]
    # Whoever is not known is told so by the library.
    return AuthResult(success=sent == args.user, handled=False)


def protocol():
    starttls = None if args.wrapped else context
    return SMTP(
        keeper,
        hostname="localhost",
        tls_context=starttls,
        require_starttls=bool(starttls and args.user),
        authenticator=known if args.user else None,
        auth_required=bool(args.user),
        auth_require_tls=not args.wrapped,
        loop=loop,
    )


async def serve():
    server = await loop.create_server(protocol, "127.0.0.1", 0, ssl=context if args.wrapped else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


keeper = Keeper()
loop = asyncio.new_event_loop()
loop.run_until_complete(serve())
