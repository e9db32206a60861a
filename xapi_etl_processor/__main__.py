"""python -m xapi_etl_processor, and xapi-etl"""

import sys

try:
    from xapi_etl_processor.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}: install the package with its extra, as in: pip install '.[local]'")

if __name__ == "__main__":
    sys.exit(main())
