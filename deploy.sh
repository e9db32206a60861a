#!/usr/bin/env bash
# Builds the deployment package and deploys it to AWS. Works with bash 3.2 and later.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./deploy.sh [--python VERSION] [--arch ARCH]    build xapi-etl-processor.zip
       ./deploy.sh --test [--python ...] [--arch ...]  build it, then run all tests with it
       ./deploy.sh --deploy NAME [--zip FILE] [--auto-rollback]
                                                       update that function and check its health
       ./deploy.sh --rollback NAME                     restore what the last --deploy replaced
       ./deploy.sh --connect BUCKET STACK              make the bucket notify the stack's queue
       ./deploy.sh --disconnect BUCKET STACK           undo only that

  --python    3.13 (default), 3.14, 3.12 or 3.11; with --deploy, the function's own version
  --arch      x86_64 (default) or arm64; with --deploy, the function's own architecture
  --zip       deploy this package instead of building one
  --auto-rollback  if the new code is not healthy, restore the old code, and exit with 1

Needs Python 3.11 or later with pip. All but building and --test also need the aws command, and
use its account and region: AWS_PROFILE, AWS_REGION.
END
}

fail() {
    echo "deploy.sh: $*" >&2
    exit 1
}

usage_error() {
    echo "deploy.sh: $1" >&2
    usage >&2
    exit 2
}

# --- Requirements --------------------------------------------------------------------------------

find_python() {
    python=.venv/bin/python
    [ -x "$python" ] || python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or later is needed: set PYTHON to one, such as PYTHON=python3.13"
    "$python" -c 'import pip' 2>/dev/null ||
        fail "$python has no pip: install it (on Debian: apt install python3-pip)"
}

find_aws() {
    command -v aws >/dev/null ||
        fail "the aws command is missing: https://docs.aws.amazon.com/cli/"
}

last_line() {
    printf '%s\n' "$1" | awk 'NF { last = $0 } END { print last }'
}

# Runs an aws command and prints its answer, as text by default; fails with the message and aws's
# own error.
aws_or_fail() {
    local message=$1 error
    shift
    if ! aws --output text "$@" 2>"$scratch/error"; then
        error=$(last_line "$(cat "$scratch/error")")
        aws sts get-caller-identity >/dev/null 2>&1 ||
            fail "the aws command has no access to an account: log in, or set AWS_PROFILE and\
 AWS_REGION ($error)"
        fail "$message: $error"
    fi
}

# --- Build ---------------------------------------------------------------------------------------

build() {
    find_python
    "$python" -m deployment.package \
        --python "${python_version:-3.13}" --arch "${arch:-x86_64}" --output "$package"
    if [ -n "$(git status --porcelain -- xapi_etl_processor deployment 2>/dev/null)" ]; then
        echo "  includes uncommitted changes"
    fi
}

run_tests() {
    build
    XAPI_PACKAGE=$PWD/$package make --no-print-directory test test-ci
}

# --- Functions -----------------------------------------------------------------------------------

# Reads the function's Python, architecture, code hash and size, and waits until it can be updated.
read_function() {
    local name=$1 handler host state
    aws_or_fail "cannot read the function $name" lambda get-function-configuration \
        --function-name "$name" --query '[Runtime, Architectures[0], CodeSha256, CodeSize, State,
            Handler, Environment.Variables.CLICKHOUSE_HOST]' >"$scratch/function"
    read -r function_python function_arch function_hash function_size state handler host \
        <"$scratch/function"
    # The stack sets both. Any other function would get our code, and lose its own.
    if [ "$handler" != index.handler ] || [ "$host" = None ]; then
        fail "$name is another function: its handler is $handler, and its variable CLICKHOUSE_HOST is\
 $host. Take the name from the stack's output FunctionName"
    fi
    function_python=${function_python#python}
    # Lambda takes the network of a function that was idle for weeks away; a call brings it back.
    if [ "$state" = Inactive ]; then
        echo "$name was idle: waking it"
        aws lambda invoke --function-name "$name" --payload "fileb://$scratch/check.json" \
            "$scratch/answer.json" >/dev/null 2>&1 || true
    fi
    aws_or_fail "$name did not become active" \
        lambda wait function-active-v2 --function-name "$name" >/dev/null
}

# hash_of FILE: as Lambda shows it
hash_of() {
    "$python" -c 'import base64, hashlib, sys
print(base64.b64encode(hashlib.sha256(open(sys.argv[1], "rb").read()).digest()).decode())' "$1"
}

# update_code NAME PACKAGE
update_code() {
    aws_or_fail "$1 was not updated" \
        lambda update-function-code --function-name "$1" --zip-file "fileb://$2" >/dev/null
    aws_or_fail "$1 was not updated" lambda wait function-updated-v2 --function-name "$1" >/dev/null
}

# publish_version NAME HASH DESCRIPTION: prints its number. Lambda refuses if other code runs by now.
publish_version() {
    aws_or_fail "cannot publish a version of $1: is somebody else deploying?" \
        lambda publish-version --function-name "$1" --code-sha256 "$2" --description "$3" \
        --query Version
}

# is_healthy NAME: prints the answer of the health check
is_healthy() {
    local function_error
    # A sleeping ClickHouse takes longer to wake than the aws command waits by default.
    function_error=$(aws_or_fail "cannot invoke $1" lambda invoke --function-name "$1" \
        --cli-read-timeout 900 --payload "fileb://$scratch/check.json" \
        --query FunctionError "$scratch/answer.json") || return 1
    "$python" - "$scratch/answer.json" "$function_error" <<'END' || return 1
import json, sys
answer = json.load(open(sys.argv[1]))
body = json.loads(answer["body"]) if "body" in answer else answer
print(json.dumps(body, indent=2))
sys.exit(sys.argv[2] != "None" or body.get("healthy") is not True)
END
    echo "$1 is healthy"
}

deploy() {
    local name=$1 version replaced=''
    find_python
    find_aws
    read_function "$name"
    if [ -z "$given_package" ]; then
        if [ "${python_version:-$function_python}" != "$function_python" ] ||
            [ "${arch:-$function_arch}" != "$function_arch" ]; then
            fail "$name runs Python $function_python on $function_arch: change the stack's\
 PythonVersion or Architecture first"
        fi
        python_version=$function_python arch=$function_arch
        build
    else
        package=$given_package
    fi
    if [ "$(hash_of "$package")" = "$function_hash" ]; then
        echo "$name runs this code already"
        is_healthy "$name" && return
        fail "$name is not healthy; its code was not changed"
    fi
    # Keep the running code, whoever deployed it. The stack's placeholder, which is smaller than any
    # package, cannot be gone back to.
    if [ "$function_size" -gt 100000 ]; then
        replaced=$(publish_version "$name" "$function_hash" "")
    fi
    update_code "$name" "$package"
    version=$(publish_version "$name" "$(hash_of "$package")" \
        "deploy.sh: ${replaced:+replaces version }${replaced:-first version}")
    echo "$name runs the new code, version $version"
    is_healthy "$name" && return
    [ -n "$replaced" ] || fail "$name is not healthy, and has no earlier code: mend what the answer\
 names, and run ./deploy.sh --deploy $name again"
    [ -n "$auto_rollback" ] || fail "$name is not healthy; ./deploy.sh --rollback $name restores\
 version $replaced"
    read_function "$name"
    [ "$(hash_of "$package")" = "$function_hash" ] ||
        fail "$name is not healthy, and somebody else has deployed other code meanwhile: it stays"
    restore "$name" "$replaced"
    is_healthy "$name" || fail "$name is not healthy with version $replaced either"
    fail "version $version of $name was not healthy: version $replaced runs again"
}

rollback() {
    local name=$1 replaced
    find_python
    find_aws
    read_function "$name"
    # Settings may have been changed since, and published with the same code. AWS promises no order
    # of versions.
    replaced=$(aws_or_fail "cannot list the versions of $name" lambda list-versions-by-function \
        --function-name "$name" --query "Versions[?CodeSha256=='$function_hash' &&
            starts_with(Description, 'deploy.sh: ')].[Version, Description]" |
        sort -n | awk -F '[\t ]' 'END { if ($3 == "replaces") print $5 }')
    [ -n "$replaced" ] || fail "the running code of $name replaced no other:\
 check out the older code, and run ./deploy.sh --deploy $name"
    restore "$name" "$replaced"
    is_healthy "$name" || fail "$name is not healthy with version $replaced either"
}

# restore NAME VERSION
restore() {
    local authorities location python_then arch_then hash_then
    aws_or_fail "cannot read version $2 of $1" lambda get-function --function-name "$1" \
        --qualifier "$2" --query '[Configuration.Runtime, Configuration.Architectures[0],
            Configuration.CodeSha256, Code.Location]' >"$scratch/version"
    read -r python_then arch_then hash_then location <"$scratch/version"
    [ "$python_then $arch_then" = "python$function_python $function_arch" ] ||
        fail "version $2 of $1 is for $python_then on $arch_then, and $1 runs Python\
 $function_python on $function_arch: change the stack's PythonVersion or Architecture back first"
    # The aws command has no call for it; trust what the command trusts, such as a company's proxy.
    authorities=${AWS_CA_BUNDLE:-$(aws configure get ca_bundle || true)}
    "$python" -c 'import ssl, sys, urllib.request
trusted = ssl.create_default_context(cafile=sys.argv[3] or None)
with urllib.request.urlopen(sys.argv[1], context=trusted, timeout=60) as answer:
    open(sys.argv[2], "wb").write(answer.read())' \
        "$location" "$scratch/previous.zip" "$authorities" 2>"$scratch/error" ||
        fail "cannot download version $2 of $1: $(last_line "$(cat "$scratch/error")"):\
 check the network, and run the same command again"
    [ "$(hash_of "$scratch/previous.zip")" = "$hash_then" ] ||
        fail "the download of version $2 of $1 is damaged: run the same command again"
    update_code "$1" "$scratch/previous.zip"
    echo "$1 runs the code of version $2 again"
}

# --- Buckets -------------------------------------------------------------------------------------

connect() {
    find_python
    find_aws
    local bucket=$1 stack=$2 outputs stack_bucket connected queue prefix queue_region bucket_region
    outputs=$(aws_or_fail "cannot read the stack $stack" cloudformation describe-stacks \
        --stack-name "$stack" --query "Stacks[0].Outputs[].[OutputKey, OutputValue]")
    stack_bucket=$(stack_output BucketName)
    connected=$(stack_output BucketIsConnected)
    queue=$(stack_output QueueArn)
    prefix=$(stack_output BundlePrefix)
    [ -n "$queue" ] || fail "the stack $stack has no output QueueArn: it is not this project's, or\
 its deployment has not ended"
    [ "$stack_bucket" = "$bucket" ] || fail "stack $stack is for the bucket $stack_bucket, and its\
 queue accepts no other: deploy it with ExistingBucketName=$bucket first"
    if [ "$connected" = "by the stack" ]; then
        echo "$bucket is part of the stack $stack and is connected already"
        return
    fi
    # S3 notifies only queues of its own region.
    queue_region=$(printf '%s' "$queue" | cut -d : -f 4)
    bucket_region=$(aws_or_fail "cannot ask where the bucket $bucket is" s3api get-bucket-location \
        --bucket "$bucket" --query LocationConstraint)
    case $bucket_region in None) bucket_region=us-east-1 ;; EU) bucket_region=eu-west-1 ;; esac
    [ "$bucket_region" = "$queue_region" ] || fail "$bucket is in $bucket_region, and the stack\
 $stack in $queue_region: S3 notifies only queues of its own region; deploy a stack there"
    change_notifications "$bucket" connect "$stack" "$queue" "$prefix"
    echo "$bucket notifies the queue of $stack about new bundles"
}

stack_output() {
    printf '%s\n' "$outputs" | awk -F '\t' -v key="$1" '$1 == key { print $2 }'
}

disconnect() {
    find_python
    find_aws
    change_notifications "$1" disconnect "$2"
    echo "$1 no longer notifies the queue of $2"
}

change_notifications() {
    local bucket=$1
    shift
    # Twice: the aws command takes an answer that was cut off for an empty one, and what is written
    # replaces the notifications of everybody.
    local reading
    for reading in first again; do
        aws_or_fail "cannot read the notifications of $bucket" \
            s3api get-bucket-notification-configuration --bucket "$bucket" --output json \
            >"$scratch/$reading.json"
    done
    "$python" -m deployment.notifications "$scratch/first.json" "$scratch/again.json" "$@" \
        >"$scratch/changed.json" 2>"$scratch/error" ||
        fail "cannot $1 $bucket: $(last_line "$(cat "$scratch/error")")"
    # The output is empty if nothing changes.
    [ -s "$scratch/changed.json" ] || return 0
    aws_or_fail "cannot change the notifications of $bucket" \
        s3api put-bucket-notification-configuration \
        --bucket "$bucket" --notification-configuration "file://$scratch/changed.json"
}

# --- Command line --------------------------------------------------------------------------------

command=build target='' stack='' python_version='' arch='' given_package='' auto_rollback=''
package=xapi-etl-processor.zip

set_command() {
    [ "$command" = build ] || usage_error "use --$command or --$1, not both"
    command=$1
}

while [ $# -gt 0 ]; do
    case $1 in
        -h | --help)
            usage
            exit
            ;;
        --test)
            set_command test
            shift
            ;;
        --deploy | --rollback)
            set_command "${1#--}"
            [ $# -ge 2 ] || usage_error "$1 needs the function's NAME"
            target=$2
            shift 2
            ;;
        --connect | --disconnect)
            set_command "${1#--}"
            [ $# -ge 3 ] || usage_error "$1 needs BUCKET and STACK"
            target=$2 stack=$3
            shift 3
            ;;
        --auto-rollback)
            auto_rollback=yes
            shift
            ;;
        --python | --arch | --zip)
            [ $# -ge 2 ] || usage_error "$1 needs a value"
            case $1 in
                --python) python_version=$2 ;;
                --arch) arch=$2 ;;
                --zip)
                    [ -f "$2" ] || fail "no package at $2: ./deploy.sh builds one"
                    given_package=$(unset CDPATH && cd "$(dirname "$2")" && pwd)/$(basename "$2")
                    ;;
            esac
            shift 2
            ;;
        *) usage_error "unknown argument: $1" ;;
    esac
done

case ${python_version:-3.13} in 3.11 | 3.12 | 3.13 | 3.14) ;; *)
    usage_error "--python must be 3.11, 3.12, 3.13 or 3.14, not $python_version"
    ;;
esac
case ${arch:-x86_64} in x86_64 | arm64) ;; *)
    usage_error "--arch must be x86_64 or arm64, not $arch"
    ;;
esac
if [ -n "$given_package" ] && [ "$command" != deploy ]; then
    usage_error "--zip only works with --deploy"
fi
if [ -n "$auto_rollback" ] && [ "$command" != deploy ]; then
    usage_error "--auto-rollback only works with --deploy"
fi

# To the folder of this file, also if it was started by a link to it.
unset CDPATH
script=$0
while [ -L "$script" ]; do
    cd "$(dirname "$script")"
    script=$(readlink "$(basename "$script")")
done
cd "$(dirname "$script")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
printf '{"health_check": true}' >"$scratch/check.json"

case $command in
    build) build ;;
    test) run_tests ;;
    deploy) deploy "$target" ;;
    rollback) rollback "$target" ;;
    connect) connect "$target" "$stack" ;;
    disconnect) disconnect "$target" "$stack" ;;
esac
