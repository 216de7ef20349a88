"""JSON for people: letters stay letters."""

import json

from dlrun.output.as_json import as_json


def test_json_keeps_letters_readable():
    assert as_json({"label": "Élektro 猫"}) == '{"label": "Élektro 猫"}'
    assert json.loads(as_json(["é\udcff"])) == ["é\udcff"] and as_json(["é\udcff"]).isascii(), "no UTF-8 has that one"
