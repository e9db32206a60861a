"""Who may do what in the stack, and where events go: each right and queue is the one it must be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.template import END, TEMPLATE, Stack

MADE = Stack()
EXISTING = Stack(
    ExistingBucketName="platform",
    BundlePrefix="exports/",
    ClickHousePasswordSecretArn="arn:aws:secretsmanager:us-east-1:123456789012:secret:x",
)


def rights(stack: Stack) -> dict[str, dict[str, Any]]:
    """The statements of the function's role, by name."""
    (policy,) = stack["Role"]["Policies"]
    return {statement["Sid"]: statement for statement in policy["PolicyDocument"]["Statement"]}


def test_only_lambda_may_use_the_role() -> None:
    (trusted,) = MADE["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trusted == {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    assert MADE["Function"]["Role"] == "Role.Arn"
    # The function prints JSON of its own, and metrics beside it.
    assert MADE["Function"]["LoggingConfig"]["LogFormat"] == "Text"
    assert MADE["Function"]["Handler"] == "index.handler"


@pytest.mark.check("S1")
def test_the_role_reaches_what_the_function_is_told_to_use_and_nothing_else() -> None:
    for stack, bucket, folder in ((MADE, "Bucket", "section/"), (EXISTING, "platform", "exports/")):
        allowed = rights(stack)
        assert {statement["Effect"] for statement in allowed.values()} == {"Allow"}
        variables = stack["Function"]["Environment"]["Variables"]
        resources = {name: statement["Resource"] for name, statement in allowed.items()}
        assert variables["S3_XAPI_BUCKET_NAME"] == bucket
        assert resources["ReadBundles"] == f"arn:aws:s3:::{bucket}/{folder}*"
        assert resources["ListBundles"] == f"arn:aws:s3:::{bucket}"
        own = {"StringEquals": {"aws:ResourceAccount": "123456789012"}}
        assert allowed["ReadBundles"]["Condition"] == own
        listing = {"StringLikeIfExists": {"s3:prefix": f"{folder}*"}}
        assert allowed["ListBundles"]["Condition"] == own | listing
        sources = ("EventSource", "BackfillSource")
        assert resources["ReceiveNotifications"] == [stack[s]["EventSourceArn"] for s in sources]
        assert resources["SendHistory"] == stack["BackfillSource"]["EventSourceArn"]
        assert variables["BACKFILL_QUEUE_URL"] == "BackfillQueue"
        assert variables["SQS_QUEUE_URL"] == "Queue"
        assert variables["SQS_DEAD_LETTER_QUEUE_URL"] == "DeadLetterQueue"
        assert resources["KeepWhatFailed"] == stack["Function"]["DeadLetterConfig"]["TargetArn"]
        assert resources["ReadSecrets"] == [variables["CLICKHOUSE_PASSWORD_SECRET_ARN"]]
        log_group = stack["Function"]["LoggingConfig"]["LogGroup"]
        assert resources["WriteLog"] == f"{log_group}.Arn"


def test_the_role_decrypts_and_uses_a_network_only_where_that_is_asked_for() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/0d9f"
    usual = rights(MADE).keys()
    keys = Stack(KmsKeyArns=f"{key},{key}77")
    encrypted, in_vpc = rights(keys), rights(Stack(SubnetIds="subnet-1"))
    assert encrypted.keys() - usual == {"Decrypt"}
    assert encrypted["Decrypt"]["Action"] == "kms:Decrypt"
    assert encrypted["Decrypt"]["Resource"] == [key, f"{key}77"]
    assert in_vpc.keys() - usual == {"Network"}
    assert not usual & {"Decrypt", "Network"}


def test_the_policies_of_queues_and_bucket_are_about_what_they_are_attached_to() -> None:
    attached = []
    for policy in MADE.resources("AWS::SQS::QueuePolicy").values():
        (queue,) = policy["Queues"]
        attached.append(queue)
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Resource"] == f"{queue}.Arn"
    assert sorted(attached) == sorted(MADE.resources("AWS::SQS::Queue"))
    assert MADE["BucketPolicy"]["Bucket"] == "Bucket"
    (tls,) = MADE["BucketPolicy"]["PolicyDocument"]["Statement"]
    assert tls["Resource"] == ["Bucket.Arn", "Bucket.Arn/*"]


@pytest.mark.check("S12")
def test_without_tls_every_action_of_everybody_is_denied() -> None:
    kinds = {"AWS::SQS::QueuePolicy": "sqs:*", "AWS::S3::BucketPolicy": "s3:*"}
    for kind, everything in kinds.items():
        for name, policy in MADE.resources(kind).items():
            denied = [s for s in policy["PolicyDocument"]["Statement"] if s["Effect"] == "Deny"]
            assert [(one["Principal"], one["Action"]) for one in denied] == [("*", everything)], (
                name
            )
            assert denied[0]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.check("S2")
def test_the_bucket_that_notifies_is_the_one_that_the_queue_accepts() -> None:
    def accepted(stack: Stack) -> Any:
        statements = [
            statement
            for policy in stack.resources("AWS::SQS::QueuePolicy").values()
            for statement in policy["PolicyDocument"]["Statement"]
        ]
        (allow,) = [statement for statement in statements if statement["Effect"] == "Allow"]
        assert allow["Principal"] == {"Service": "s3.amazonaws.com"}
        assert allow["Action"] == "sqs:SendMessage"
        return allow["Condition"]

    account = {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    bucket = MADE["Bucket"]["BucketName"]
    assert bucket == f"dev-xapi-bundles-{END}"
    assert accepted(MADE) == {"ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"}, **account}
    assert accepted(EXISTING) == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::platform"},
        **account,
    }
    # S3 refuses a notification to a queue that does not accept it yet.
    assert TEMPLATE["Resources"]["Bucket"]["DependsOn"] == "QueuePolicy"


@pytest.mark.check("S2")
def test_a_topic_or_a_rule_may_send_to_the_queue_only_if_it_is_named() -> None:
    account = "us-east-1:123456789012"
    for parameter, service, arn in (
        ("FanOutTopicArn", "sns.amazonaws.com", f"arn:aws:sns:{account}:uploads"),
        ("FanOutRuleArn", "events.amazonaws.com", f"arn:aws:events:{account}:rule/up"),
    ):
        usual = MADE["QueuePolicy"]["PolicyDocument"]["Statement"]
        named = Stack(**{parameter: arn})["QueuePolicy"]["PolicyDocument"]["Statement"]
        (added,) = [statement for statement in named if statement not in usual]
        del added["Sid"]
        assert added == {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sqs:SendMessage",
            "Resource": "Queue.Arn",
            "Condition": {"ArnEquals": {"aws:SourceArn": arn}},
        }


def test_every_new_bundle_in_the_folder_is_announced_once_to_the_queue_that_is_read() -> None:
    stack = Stack(BundlePrefix="exports/")
    found = []
    for one in stack["Bucket"]["NotificationConfiguration"]["QueueConfigurations"]:
        assert one["Event"] == "s3:ObjectCreated:*"
        assert one["Queue"] == stack["EventSource"]["EventSourceArn"] == "Queue.Arn"
        rules = {rule["Name"]: rule["Value"] for rule in one["Filter"]["S3Key"]["Rules"]}
        found.append((rules["prefix"], rules["suffix"]))
    assert sorted(found) == [("exports/", ".jsonl"), ("exports/", ".jsonl.gz")]


@pytest.mark.check("S18")
def test_what_fails_goes_to_the_dead_letter_queue_and_never_back_to_the_queue() -> None:
    stack = MADE.resources()
    letters = "DeadLetterQueue.Arn"
    for queue in ("Queue", "BackfillQueue"):
        assert stack[queue]["RedrivePolicy"]["deadLetterTargetArn"] == letters
    assert stack["Function"]["DeadLetterConfig"]["TargetArn"] == letters
    assert stack["Queue"]["QueueName"] == "dev-xapi-etl-processor"
    assert stack["DeadLetterQueue"]["QueueName"] == "dev-xapi-etl-processor-dead-letters"
    # Without it Lambda would delete the failed messages of a batch with the others.
    for source in ("EventSource", "BackfillSource"):
        assert stack[source]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert stack[source]["FunctionName"] == "Function"
    # An asynchronous event is tried three times within six hours.
    asynchronous = stack["AsynchronousInvocation"]
    assert (asynchronous["FunctionName"], asynchronous["Qualifier"]) == ("Function", "$LATEST")
    assert asynchronous["MaximumRetryAttempts"] == 2
    assert asynchronous["MaximumEventAgeInSeconds"] == 6 * 60 * 60
    # A dead letter stays until somebody looks at it.
    assert not stack["DeadLetterQueue"].keys() & {"RedrivePolicy", "VisibilityTimeout"}
    # The function's own destination, if it gets one, is a second path to the same queue.
    destinations = stack["AsynchronousInvocation"].get("DestinationConfig", {})
    assert all(one == {"Destination": letters} for one in destinations.values())


@pytest.mark.check("S12")
def test_the_bucket_outlives_the_stack_is_encrypted_and_private_and_restores_for_thirty_days() -> (
    None
):
    for kept in ("Bucket", "BucketPolicy"):
        # Of a stack that could not be created, nothing is left.
        assert TEMPLATE["Resources"][kept]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert TEMPLATE["Resources"][kept]["UpdateReplacePolicy"] == "Retain"
    bucket = MADE["Bucket"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["LifecycleConfiguration"]["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    # Nothing else expires: bundles stay.
    assert not rule.keys() & {"ExpirationInDays", "ExpirationDate"}
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7
    (owner,) = bucket["OwnershipControls"]["Rules"]
    assert owner["ObjectOwnership"] == "BucketOwnerEnforced"
    assert [*bucket["PublicAccessBlockConfiguration"].values()] == [True] * 4
    (encrypted,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encrypted == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    queues = MADE.resources("AWS::SQS::Queue").values()
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues)
