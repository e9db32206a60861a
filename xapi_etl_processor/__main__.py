"""python -m xapi_etl_processor"""

import sys

from .cli import main

sys.exit(main())
