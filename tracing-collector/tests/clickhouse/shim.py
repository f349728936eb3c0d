# SPDX-License-Identifier: Apache-2.0
"""ClickHouse's HTTP interface over chdb, the engine as a Python module: what the collector's tests have for a server.

Statements run one at a time. Prints its port. `--password` is asked of the user `default`; `--version` lies about it.
"""

import argparse
import os
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

parser = argparse.ArgumentParser()
parser.add_argument("--folder", required=True)
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--password", default="")
parser.add_argument("--version")
options = parser.parse_args()

engine = session.Session(options.folder)
turn = threading.Lock()
structures = {}


def structure(table, database):
    """Names and types, for `file` knows nothing of the table it feeds."""
    if (database, table) not in structures:
        rows = str(engine.query(f"DESCRIBE TABLE {database}.{table}", "TabSeparatedRaw"))
        columns = [line.split("\t")[:2] for line in rows.splitlines()]
        structures[database, table] = {name: kind for name, kind in columns}
    return structures[database, table]


def insert(statement, database, rows):
    """`INSERT INTO t (a, b) FORMAT RowBinary`, its rows in the request's body."""
    table = statement.split()[2]
    names = [name.strip().strip("`") for name in statement[statement.index("(") + 1 : statement.rindex(")")].split(",")]
    kinds = structure(table, database)
    columns = ", ".join(f"`{name}` {kinds[name]}" for name in names).replace("\\", "\\\\").replace("'", "\\'")
    quoted = ", ".join(f"`{name}`" for name in names)
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(rows)
    try:
        engine.query(f"INSERT INTO {database}.{table} ({quoted}) SELECT * FROM file('{file.name}', 'RowBinary', '{columns}')")
    finally:
        os.unlink(file.name)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        settings = parse_qs(urlsplit(self.path).query)
        database = self.headers.get("X-ClickHouse-Database", "default")
        if self.headers.get("X-ClickHouse-Key", "") != options.password:
            return self.answer(403, b"Code: 516. DB::Exception: default: Authentication failed. (AUTHENTICATION_FAILED)")
        try:
            with turn:
                engine.query(f"USE {database}")
                if "query" in settings:
                    insert(settings["query"][0], database, body)
                    return self.answer(200, b"")
                statement = body.decode()
                if options.version and "version()" in statement:
                    return self.answer(200, options.version.encode())
                kind = statement.rsplit("FORMAT ", 1)[1] if "FORMAT " in statement else "TabSeparated"
                result = engine.query(statement.rsplit("FORMAT ", 1)[0], kind)
                return self.answer(200, result.bytes() or b"")
        except Exception as error:  # The engine has one kind; its text is what a server sends.
            return self.answer(500, str(error).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
