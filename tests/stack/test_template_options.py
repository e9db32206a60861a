"""The stack's parameters: what they accept, and what each of them changes."""

from __future__ import annotations

import json
import re

from deployment.package import ARCHITECTURES, DEFAULT_PYTHON, PYTHONS
from tests.support.template import END, PARAMETERS, REQUIRED, TEMPLATE, Stack
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.secrets import MIN_KEY_CHARACTERS
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.lambda_function import mode_of

SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:clickhouse-AbCdEf"
KEY = "arn:aws:kms:us-east-1:123456789012:key/0d9f"
MULTI_REGION_KEY = KEY.replace("0d9f", "mrk-1f0c")
ALIAS = KEY.replace("key/0d9f", "alias/mine")
TOPIC = "arn:aws:sns:us-east-1:123456789012:uploads"
RULE = "arn:aws:events:us-east-1:123456789012:rule/uploads"
BUNDLES = f"dev-xapi-bundles-{END}"
ACCEPTED = {
    "Environment": ["dev", "prod-2", "a" * 20],
    "ClickHouseHost": ["ch.example.org", "10.0.0.7", "fd00::7", "ClickHouse_1"],
    "ClickHousePasswordSecretArn": ["", SECRET, SECRET.replace("aws", "aws-us-gov", 1)],
    "LearnerKeySecretArn": ["", SECRET],
    "ClickHousePort": ["", "1", "9000", "59999", "64999", "65499", "65529", "65535"],
    "ClickHouseDatabase": ["xapi_analytics", "_Lake2"],
    "ClickHouseCluster": ["", "default", "replicas_2"],
    "ExistingBucketName": ["", "abc", "a.b-c.1", "a" * 63],
    "BundlePrefix": ["section/", "exports/section/", "2024-25/Exports_v1.2/(a!'b')/"],
    "OtherBuckets": ["", "old-one, older.1,oldest"],
    "KmsKeyArns": ["", KEY, KEY.replace("aws", "aws-cn", 1), f"{KEY},{KEY}9,{MULTI_REGION_KEY}"],
    "FanOutTopicArn": ["", TOPIC, TOPIC.replace("aws", "aws-us-gov", 1)],
    "FanOutRuleArn": ["", RULE, RULE.replace("rule/", "rule/a-bus/")],
    "VerifySchedule": ["", "rate(1 day)", "cron(0 3 * * ? *)", "cron(0/15 8-17 ? * MON-FRI *)"],
    "AlarmTopicArn": ["", "arn:aws:sns:us-east-1:123456789012:on-call"],
    "RolePath": ["/", "/service/", "/department/service-roles/"],
    "PermissionsBoundaryArn": [
        "",
        "arn:aws:iam::123456789012:policy/boundary",
        "arn:aws:iam::aws:policy/PowerUserAccess",
    ],
}
REFUSED = {
    "Environment": ["", "Prod", "1st", "a_b", "a" * 21],
    "ClickHouseHost": ["", "https://ch.example.org", "ch.example.org/db", "two hosts", "ch:9440"],
    "ClickHousePasswordSecretArn": ["clickhouse", KEY],
    "LearnerKeySecretArn": ["key", KEY],
    "ClickHousePort": ["native", "-1", "0", "0900", "65536", "70000", "123456"],
    "ClickHouseDatabase": ["", "xapi-analytics", "1st", "a b"],
    "ClickHouseCluster": ["my-cluster", "{cluster}", "a b"],
    "ExistingBucketName": ["ab", "Upper", "-a-b", "a-b-", "a" * 64, "s3://abc"],
    "BundlePrefix": [
        *("", "/", "section", "/section/", "section//", "*/", "?/", "${x}/"),
        # A policy or a notification's filter would read these otherwise than they are written.
        *("a*/", "a?b/", "a$b/", "a b/", "a+b/", "a%20b/", "é/", "year=2024/", "a\n/", "a&b/"),
    ],
    "OtherBuckets": ["Upper", "s3://old"],
    "KmsKeyArns": ["alias/mine", ALIAS, f"{KEY},{ALIAS}", f"{KEY}/", f"{KEY}*", "*", SECRET],
    # In a policy's ArnEquals, * and ? stand for any text. S3 sends to no FIFO topic.
    "FanOutTopicArn": [
        "uploads",
        RULE,
        f"{TOPIC}*",
        "arn:aws:sns:*:123456789012:u",
        f"{TOPIC}.fifo",
    ],
    "FanOutRuleArn": ["uploads", TOPIC, f"{RULE}?", RULE.replace("uploads", "*")],
    "VerifySchedule": ["daily", "0 3 * * *", "rate(1 day", "at(2024-01-01T00:00:00)"],
    "AlarmTopicArn": ["on-call", SECRET],
    "RolePath": ["", "service", "/service", "/a b/"],
    "PermissionsBoundaryArn": ["boundary", "arn:aws:iam::123456789012:role/r"],
}


def accepts(name: str, value: str) -> bool:
    """Whether the pattern matches all of the value or, for a list, all of each item.

    As CloudFormation does it (its user guide, "Parameters", AllowedPattern).
    """
    parameter = PARAMETERS[name]
    items = value.split(",") if parameter["Type"] == "CommaDelimitedList" else [value]
    return all(re.fullmatch(parameter["AllowedPattern"], item) for item in items)


def test_every_pattern_accepts_what_is_usual_and_refuses_what_is_usually_mistaken() -> None:
    patterns = {name for name, parameter in PARAMETERS.items() if "AllowedPattern" in parameter}
    assert patterns == ACCEPTED.keys() == REFUSED.keys()
    for name in patterns:
        assert [v for v in ACCEPTED[name] if not accepts(name, v)] == [], name
        assert [v for v in REFUSED[name] if accepts(name, v)] == [], name


# What AWS accepts, from the references of the properties that the parameters set.
LIMITS = {
    "MemorySize": (128, 10_240),
    # AWS allows 10,000; giving so many back to SQS would take longer than what is kept for it.
    "BatchSize": (1, 1_000),
    "BatchingWindow": (0, 300),
    "MaximumConcurrency": (2, 1_000),
    "BackfillConcurrency": (2, 1_000),
}


def test_numbers_and_choices_are_those_of_aws_and_of_the_function() -> None:
    for name, (lowest, highest) in LIMITS.items():
        assert lowest <= PARAMETERS[name]["MinValue"], name
        assert PARAMETERS[name]["MaxValue"] == highest, name
    numbers = {name: p for name, p in PARAMETERS.items() if p["Type"] == "Number"}
    assert [name for name, parameter in numbers.items() if parameter["MinValue"] < 1] == []
    concurrency = numbers["BackfillConcurrency"]
    for value in (concurrency["MinValue"], concurrency["MaxValue"]):
        host = {"CLICKHOUSE_HOST": "ch.example.org"}
        assert Settings.from_env({**host, "BACKFILL_CONCURRENCY": str(value)})
    # Choices are what Lambda and the code know.
    assert PARAMETERS["Architecture"]["AllowedValues"] == list(ARCHITECTURES)
    assert PARAMETERS["PythonVersion"]["AllowedValues"] == [f"python{v}" for v in PYTHONS]
    assert PARAMETERS["PythonVersion"]["Default"] == f"python{DEFAULT_PYTHON}"
    assert PARAMETERS["ClickHouseSecure"]["AllowedValues"] == ["true", "false"]
    assert max(map(int, PARAMETERS["Timeout"]["AllowedValues"])) == 900  # Lambda's limit


def test_every_variable_has_the_value_of_its_parameter() -> None:
    # The code's word for it differs from the stack's.
    other_names = {"S3_XAPI_PREFIX": "BundlePrefix", "S3_XAPI_OTHER_BUCKETS": "OtherBuckets"}
    by_name = {name.lower(): name for name in PARAMETERS}
    variables = Stack(ClickHousePasswordSecretArn=SECRET)["Function"]["Environment"]["Variables"]
    others = {"S3_XAPI_BUCKET_NAME", "SQS_QUEUE_URL", "SQS_DEAD_LETTER_QUEUE_URL"}
    others |= {"BACKFILL_QUEUE_URL", "MALLOC_ARENA_MAX"}
    for variable in variables.keys() - others:
        parameter = other_names.get(variable) or by_name[variable.replace("_", "").lower()]
        given = Stack(**{parameter: "1234"})["Function"]["Environment"]["Variables"]
        assert given[variable] == "1234", variable
        assert list(given.values()).count("1234") == 1


def test_a_new_stack_connects_with_tls_to_the_port_for_it() -> None:
    for secure, port in (("true", 9440), ("false", 9000)):
        variables = Stack(ClickHouseSecure=secure)["Function"]["Environment"]["Variables"]
        settings = Settings.from_env({name: str(value) for name, value in variables.items()})
        assert settings.clickhouse_port == port
    assert Stack().values["ClickHouseSecure"] == "true"


def test_the_functions_settings_follow_their_parameters() -> None:
    stack = Stack(
        Environment="prod",
        PythonVersion="python3.12",
        Architecture="arm64",
        MemorySize="2048",
        Timeout="600",
        BatchSize="7",
        BatchingWindow="9",
        MaximumConcurrency="3",
        BackfillConcurrency="4",
    )
    function, source, queue = stack["Function"], stack["EventSource"], stack["Queue"]
    assert function["FunctionName"] == "prod-xapi-etl-processor"
    assert (function["Runtime"], function["Architectures"]) == ("python3.12", ["arm64"])
    assert (function["MemorySize"], function["Timeout"]) == ("2048", "600")
    assert (source["BatchSize"], source["MaximumBatchingWindowInSeconds"]) == ("7", "9")
    assert source["ScalingConfig"] == {"MaximumConcurrency": "3"}
    assert stack["BackfillSource"]["ScalingConfig"] == {"MaximumConcurrency": "4"}
    assert queue["VisibilityTimeout"] >= 6 * 600


def test_a_new_stack_makes_a_bucket_and_a_secret_and_its_outputs_name_them() -> None:
    stack = Stack(BundlePrefix="exports/")
    assert stack.refusals() == []
    made, outputs = stack.resources(), stack.outputs()
    variables = made["Function"]["Environment"]["Variables"]
    assert variables["S3_XAPI_BUCKET_NAME"] == "Bucket"
    assert made["Bucket"]["BucketName"] == BUNDLES
    assert variables["CLICKHOUSE_PASSWORD_SECRET_ARN"] == "Secret"
    assert made["Secret"]["SecretString"] == REQUIRED["ClickHousePassword"]
    assert {name: outputs[name] for name in outputs.keys() - {"NextStep", "DashboardUrl"}} == {
        "FunctionName": "Function",
        "BucketName": "Bucket",
        "BundlePrefix": "exports/",
        "BucketIsConnected": "by the stack",
        "QueueUrl": "Queue",
        "QueueArn": "Queue.Arn",
        "DeadLetterQueueUrl": "DeadLetterQueue",
        "DeadLetterQueueArn": "DeadLetterQueue.Arn",
        "EventSourceMappingId": "EventSource",
        "BackfillQueueUrl": "BackfillQueue",
        "BackfillSourceId": "BackfillSource",
        "SecretArn": "Secret",
        "LogGroupName": "LogGroup",
    }
    assert outputs["DashboardUrl"].endswith("region=us-east-1#dashboards:name=Dashboard")
    consoles = {
        "aws": "console.aws.amazon.com",
        "aws-cn": "console.amazonaws.cn",
        "aws-us-gov": "console.amazonaws-us-gov.com",
    }
    for partition, console in consoles.items():
        stack.values["AWS::Partition"] = partition
        url = stack.outputs()["DashboardUrl"]
        assert url.startswith(f"https://us-east-1.{console}/cloudwatch/")


def test_a_bucket_and_a_secret_that_exist_are_used_instead() -> None:
    stack = Stack(ExistingBucketName="platform", ClickHousePasswordSecretArn=SECRET)
    made = stack.resources()
    assert not made.keys() & {"Bucket", "BucketPolicy", "Secret"}
    variables = made["Function"]["Environment"]["Variables"]
    assert variables["S3_XAPI_BUCKET_NAME"] == stack.outputs()["BucketName"] == "platform"
    assert variables["CLICKHOUSE_PASSWORD_SECRET_ARN"] == stack.outputs()["SecretArn"] == SECRET
    assert stack.outputs()["BucketIsConnected"] == "by deploy.sh --connect"
    assert stack.outputs()["BeforeDeletion"] == "./deploy.sh --disconnect platform s"


def test_parameters_that_contradict_each_other_are_refused() -> None:
    cases: list[tuple[dict[str, str], bool]] = [
        ({}, False),
        ({"ClickHousePassword": "", "ClickHousePasswordSecretArn": SECRET}, False),
        ({"ClickHousePassword": ""}, True),
        ({"ClickHousePasswordSecretArn": SECRET}, True),
        ({"CodeBucket": "releases"}, True),
        ({"CodeBucket": "releases", "CodeKey": "p.zip"}, False),
        ({"SubnetIds": "subnet-1"}, True),
        ({"SubnetIds": "subnet-1", "SecurityGroupIds": "sg-1"}, False),
    ]
    for parameters, refused in cases:
        given = {"ClickHousePassword": "p", **parameters}
        assert len(Stack(**given).refusals()) == refused, parameters


def test_pseudonyms_get_a_key_that_outlives_the_stack_unless_one_exists() -> None:
    stack = Stack(LearnerIds="pseudonyms")
    variables = stack["Function"]["Environment"]["Variables"]
    assert variables["LEARNER_IDS"] == "pseudonyms"
    assert variables["LEARNER_KEY_SECRET_ARN"] == "LearnerKey"
    assert stack.outputs()["LearnerKeySecretArn"] == "LearnerKey"
    (policy,) = stack["Role"]["Policies"]
    resources = {one["Sid"]: one["Resource"] for one in policy["PolicyDocument"]["Statement"]}
    assert "LearnerKey" in resources["ReadSecrets"]
    assert stack["LearnerKey"]["GenerateSecretString"]["PasswordLength"] >= MIN_KEY_CHARACTERS
    assert TEMPLATE["Resources"]["LearnerKey"]["DeletionPolicy"] == "Retain"
    for ids, key in (("plain", SECRET), ("pseudonyms", SECRET), ("plain", "")):
        stack = Stack(LearnerIds=ids, LearnerKeySecretArn=key)
        assert "LearnerKey" not in stack.resources()
        variables = stack["Function"]["Environment"]["Variables"]
        assert variables["LEARNER_KEY_SECRET_ARN"] == key
    assert "LearnerKeySecretArn" not in stack.outputs()


def test_what_is_not_asked_for_is_left_out() -> None:
    plain = Stack()
    assert plain["Role"]["Path"] == "/"
    assert "PermissionsBoundary" not in plain["Role"]
    assert plain.outputs()["NextStep"] == "./deploy.sh --deploy Function"
    function = plain["Function"]
    assert not function.keys() & {"Layers", "ReservedConcurrentExecutions", "VpcConfig"}
    assert function["Code"].keys() == {"ZipFile"}
    network = {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "group-1"}
    code = {"CodeBucket": "releases", "CodeKey": "p.zip"}
    for parameters, added in (
        ({"LayerArns": "layer-1,layer-2"}, {"Layers": ["layer-1", "layer-2"]}),
        (network, {"VpcConfig": {name: value.split(",") for name, value in network.items()}}),
        (code, {"Code": {"S3Bucket": "releases", "S3Key": "p.zip"}}),
    ):
        assert Stack(**parameters)["Function"] == {**function, **added}
    step = Stack(**code).outputs()["NextStep"]
    assert "| aws lambda invoke --function-name Function " in step
    boundary = "arn:aws:iam::123456789012:policy/boundary"
    role = Stack(RolePath="/service/", PermissionsBoundaryArn=boundary)["Role"]
    assert (role["Path"], role["PermissionsBoundary"]) == ("/service/", boundary)


def test_a_verify_schedule_enables_a_rule_that_alone_may_invoke_the_function() -> None:
    (off,) = Stack().resources("AWS::Events::Rule").values()
    assert off["State"] == "DISABLED"
    stack = Stack(VerifySchedule="cron(0 3 * * ? *)")
    (rule,) = stack.resources("AWS::Events::Rule").values()
    assert (rule["ScheduleExpression"], rule["State"]) == ("cron(0 3 * * ? *)", "ENABLED")
    (target,) = rule["Targets"]
    assert target["Arn"] == "Function.Arn"
    (permission,) = stack.resources("AWS::Lambda::Permission").values()
    assert permission["SourceArn"] == "VerifyRule.Arn"
    assert permission["Principal"] == "events.amazonaws.com"
    # The payload is a verification that writes nothing.
    payload = json.loads(target["Input"])
    assert mode_of(payload) == "bulk"
    request = read_request(payload, Settings("ch.example.org", bucket="bundles"))
    assert (request.verify, request.repair) == (True, False)
    # Six times the longest pause between two tries of a message.
    assert request.min_age_minutes == 60
