"""What notebooks show of themselves."""

import re
from dataclasses import fields

import numpy as np

from lib import similarity
from replication import notebook, profiles

ROW = re.compile(r"<th>([^<]*)</th>\s*<td>([^<]*)</td>\s*<td>([^<]*)</td>")


def test_a_profile_stands_beside_the_papers():
    profile = profiles.get("quick", limit=3)
    short, everything = (
        {row: (here, paper) for row, here, paper in ROW.findall(part)}
        for part in notebook.settings(profile).data.split("<details>")
    )
    assert short.keys() == notebook.ROWS.keys()
    assert short["BoolQ"] == ("3 questions", "3,270 questions")
    assert short["models"] == ("smollm2-135m", ", ".join(profiles.PROFILES["paper"].models))
    assert short["healing"][1] == "5,000 steps of 16 texts of 2,048 tokens"
    assert everything.keys() == {field.name for field in fields(profile)}
    assert everything["boolq_questions"] == ("3", "3270")


def test_code_is_shown_as_it_is():
    html = notebook.source(similarity.angular_distances).data
    assert "<summary><code>lib.similarity.angular_distances</code></summary>" in html
    assert "torch.arccos(cosines.clamp(-1, 1)) / torch.pi" in html
    assert "-&gt; np.ndarray" in html and "<pre>def angular_distances(" in html


def test_a_token_is_the_darker_the_larger_its_value():
    html = notebook.shaded(["<s>", " a", " b"], np.array([0.0, 0.2, 0.1])).data
    shades = re.findall(r"background: #(\w+)", html)
    brightness = [sum(bytes.fromhex(shade)) for shade in shades]
    assert brightness[1] < brightness[2] < brightness[0]
    assert 'title="0.200"> a</span>' in html and "&lt;s&gt;" in html
