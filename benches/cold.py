"""`cold.py`: a Lambda handler's start in Python: boto3 and requests imported, then the first call to the runtime API."""

import os
import urllib.request

import boto3  # noqa: F401
import requests  # noqa: F401

urllib.request.urlopen(f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/next")
