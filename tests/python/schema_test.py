"""Holds the schema of seeway.toml against a real validator, which knows nothing of Seeway.

On stdin: {"schema": ..., "cases": [{"name": ..., "document": ..., "valid": true or false}, ...]}. Says each case that the schema judges
otherwise, and ends with 1 then.
"""

import json
import sys

import jsonschema


def main() -> int:
    given = json.load(sys.stdin)
    schema = given["schema"]
    # Against the schema of schemas, first.
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    wrong = 0
    for case in given["cases"]:
        errors = list(validator.iter_errors(case["document"]))
        if (not errors) != case["valid"]:
            wrong += 1
            what = "; ".join(error.message for error in errors) or "nothing is wrong with it"
            print(f"{case['name']}: should be {'valid' if case['valid'] else 'invalid'}: {what}")
    print(f"{len(given['cases'])} cases, {wrong} judged wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
