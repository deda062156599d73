"""ministack without its limit of one second on the evaluation of a JSONata expression, so that the machine's speed decides no
test. The limit is AWS's own; test_fleet.py holds the largest expression to a number of steps instead."""

import sys

import jsonata

limited = jsonata.Jsonata.jsonata
jsonata.Jsonata.jsonata = staticmethod(lambda expression, timeout=None: limited(expression))

from ministack.app import main  # noqa: E402

sys.exit(main())
