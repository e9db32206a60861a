"""python -m xapi_etl_processor"""

import sys

from xapi_etl_processor.cli import main

sys.exit(main())
