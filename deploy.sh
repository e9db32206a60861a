#!/usr/bin/env bash
# Builds the deployment package and deploys it to AWS. Works with bash 3.2 and later.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./deploy.sh [--python VERSION] [--arch ARCH]    build xapi-etl-processor.zip
       ./deploy.sh --test [--python ...] [--arch ...]  build it, then run all tests with it
       ./deploy.sh --deploy NAME [--zip FILE]          update that function and check its health
       ./deploy.sh --rollback NAME                     restore its previous code
       ./deploy.sh --connect BUCKET STACK              make the bucket notify the stack's queue
       ./deploy.sh --disconnect BUCKET STACK           undo only that

  --python    3.13 (default), 3.14, 3.12 or 3.11; with --deploy, the function's own version
  --arch      x86_64 (default) or arm64; with --deploy, the function's own architecture
  --zip       deploy this package instead of building one

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
    XAPI_PACKAGE=$PWD/$package make --no-print-directory test
}

# --- Functions -----------------------------------------------------------------------------------

# Reads the function's Python, architecture and code hash, and waits until it can be updated.
read_function() {
    local configuration
    configuration=$(aws_or_fail "cannot read the function $1" lambda get-function-configuration \
        --function-name "$1" --query '[Runtime, Architectures[0], CodeSha256]')
    read -r function_python function_arch function_hash <<END
$configuration
END
    function_python=${function_python#python}
    aws_or_fail "$1 did not become active" \
        lambda wait function-active-v2 --function-name "$1" >/dev/null
}

update_code() {
    local deployed_hash package_hash
    deployed_hash=$(aws_or_fail "$1 was not updated" lambda update-function-code \
        --function-name "$1" --zip-file "fileb://$2" --query CodeSha256)
    package_hash=$("$python" -c 'import base64, hashlib, sys
print(base64.b64encode(hashlib.sha256(open(sys.argv[1], "rb").read()).digest()).decode())' "$2")
    [ "$deployed_hash" = "$package_hash" ] ||
        fail "$1 has other code than $2: someone else is deploying at the same time"
    aws_or_fail "$1 was not updated" lambda wait function-updated-v2 --function-name "$1" >/dev/null
}

publish_version() {
    aws_or_fail "cannot publish a version of $1" \
        lambda publish-version --function-name "$1" --query Version
}

# check_health NAME ADVICE
check_health() {
    local function_error
    printf '{"health_check": true}' >"$scratch/check.json"
    # A sleeping ClickHouse takes longer to wake than the aws command waits by default.
    function_error=$(aws_or_fail "cannot invoke $1" lambda invoke --function-name "$1" \
        --cli-read-timeout 900 --payload "fileb://$scratch/check.json" \
        --query FunctionError "$scratch/answer.json")
    "$python" - "$scratch/answer.json" "$function_error" <<'END' || fail "$1 is not healthy; $2"
import json, sys
answer = json.load(open(sys.argv[1]))
body = json.loads(answer["body"]) if "body" in answer else answer
print(json.dumps(body, indent=2))
sys.exit(sys.argv[2] != "None" or body.get("healthy") is not True)
END
    echo "$1 is healthy"
}

deploy() {
    local version
    find_python
    find_aws
    read_function "$1"
    if [ -z "$given_package" ]; then
        if [ "${python_version:-$function_python}" != "$function_python" ] ||
            [ "${arch:-$function_arch}" != "$function_arch" ]; then
            fail "$1 runs Python $function_python on $function_arch: change the stack's\
 PythonVersion or Architecture first"
        fi
        python_version=$function_python arch=$function_arch
        build
    else
        package=$given_package
    fi
    # Keep the running code as a version, whoever deployed it, so that --rollback can restore it.
    publish_version "$1" >/dev/null
    update_code "$1" "$package"
    version=$(publish_version "$1")
    echo "$1 runs the new code, version $version"
    check_health "$1" "./deploy.sh --rollback $1 restores the previous code"
}

# Restores the last version before the running one that has other code. Versions for another Python
# or architecture are skipped, and so is the stack's placeholder: it is smaller than any package.
# AWS promises no order of versions.
rollback() {
    local previous location
    find_python
    find_aws
    read_function "$1"
    previous=$(aws_or_fail "cannot list the versions of $1" lambda list-versions-by-function \
        --function-name "$1" --query "Versions[?Version!='\$LATEST' && CodeSize>\`100000\` &&
            Runtime=='python$function_python' && Architectures[0]=='$function_arch'
        ].[Version, CodeSha256]" | sort -n | awk -v running="$function_hash" '
            { version[NR] = $1; hash[NR] = $2; if ($2 == running) current = NR }
            END {
                for (i = current ? current - 1 : NR; i > 0; i--)
                    if (hash[i] != running) { print version[i]; exit }
            }')
    [ -n "$previous" ] ||
        fail "$1 has no earlier version for Python $function_python on $function_arch:" \
            "check out the older code, and run ./deploy.sh --deploy $1"
    location=$(aws_or_fail "cannot read version $previous of $1" lambda get-function \
        --function-name "$1" --qualifier "$previous" --query Code.Location)
    "$python" -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
        "$location" "$scratch/previous.zip" || fail "cannot download version $previous of $1:" \
            "check the network, and run the same command again"
    update_code "$1" "$scratch/previous.zip"
    echo "$1 runs the code of version $previous again"
    check_health "$1" "./deploy.sh --rollback $1 goes back one more version"
}

# --- Buckets -------------------------------------------------------------------------------------

connect() {
    find_python
    find_aws
    local bucket=$1 stack=$2 outputs stack_bucket connected queue prefix
    outputs=$(aws_or_fail "cannot read the stack $stack" cloudformation describe-stacks \
        --stack-name "$stack" --query "Stacks[0].Outputs[].[OutputKey, OutputValue]")
    stack_bucket=$(stack_output BucketName)
    connected=$(stack_output BucketIsConnected)
    queue=$(stack_output QueueArn)
    prefix=$(stack_output BundlePrefix)
    [ "$stack_bucket" = "$bucket" ] || fail "stack $stack is for the bucket $stack_bucket, and its\
 queue accepts no other: deploy it with ExistingBucketName=$bucket first"
    if [ "$connected" = "by the stack" ]; then
        echo "$bucket is part of the stack $stack and is connected already"
        return
    fi
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

command=build target='' stack='' python_version='' arch='' given_package=''
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
        --python | --arch | --zip)
            [ $# -ge 2 ] || usage_error "$1 needs a value"
            case $1 in
                --python) python_version=$2 ;;
                --arch) arch=$2 ;;
                --zip)
                    [ -f "$2" ] || fail "no package at $2: ./deploy.sh builds one"
                    given_package=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
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

cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case $command in
    build) build ;;
    test) run_tests ;;
    deploy) deploy "$target" ;;
    rollback) rollback "$target" ;;
    connect) connect "$target" "$stack" ;;
    disconnect) disconnect "$target" "$stack" ;;
esac
