# SPDX-License-Identifier: Apache-2.0
"""`aws appmesh` for every call of a file, in one interpreter: starting the command line anew for each call would cost
more than the rest of the test. Arguments: endpoint URL, file, a list of `{"create-route": <its --cli-input-json>}`.
"""

import json
import os
import sys

import awscli.clidriver

endpoint, file = sys.argv[1:3]
os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_MAX_ATTEMPTS="1")
driver = awscli.clidriver.create_clidriver()
with open(file, encoding="utf-8") as calls:
    for call in json.load(calls):
        for operation, document in call.items():
            arguments = [operation, "--cli-input-json", json.dumps(document)]
            code = driver.main(["--endpoint-url", endpoint, "appmesh", *arguments])
            if code:
                sys.exit(f"aws appmesh {operation} ends with {code}: {document}")
