"""Write down the TeX of every equation, after its entry was brought in line: python -m tests.equations."""

import json

from tests import pages
from tests.equations import PRINTED

PRINTED.write_text(json.dumps(pages.printed(), indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
