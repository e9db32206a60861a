#!/usr/bin/env bash
# Builds the deployment package, and takes it to AWS. Works with bash 3.2 and later.
set -euo pipefail

usage() {
    cat <<'END'
usage: ./deploy.sh [--python VERSION] [--arch ARCH]   build xapi-etl-processor.zip
       ./deploy.sh --test [--python ...] [--arch ...]  build it, then test all of it on this machine
       ./deploy.sh --deploy NAME [--zip FILE]          update that function and check its health
       ./deploy.sh --rollback NAME                     put its previous code back
       ./deploy.sh --connect BUCKET STACK              let an existing bucket tell the stack's queue
       ./deploy.sh --disconnect BUCKET STACK           undo only that

  --python    3.13 (default), 3.12 or 3.11; with --deploy, what the function has
  --arch      x86_64 (default) or arm64; with --deploy, what the function has
  --zip       a package that was built before, instead of building one

Needs Python 3.11 with pip to build, and the aws command for the rest. Account and region are those
of the aws command: AWS_PROFILE, AWS_REGION.
END
}

fail() {
    echo "deploy.sh: $1" >&2
    exit 1
}

misused() {
    echo "deploy.sh: $1" >&2
    usage >&2
    exit 2
}

# --- What this machine needs --------------------------------------------------------------------

find_python() {
    python=.venv/bin/python
    [ -x "$python" ] || python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or later is needed: set PYTHON to one, such as PYTHON=python3.13"
    "$python" -m pip --version >/dev/null 2>&1 ||
        fail "$python has no pip: install it (on Debian: apt install python3-pip)"
}

find_aws() {
    command -v aws >/dev/null ||
        fail "the aws command is missing: https://docs.aws.amazon.com/cli/"
    local said
    said=$(aws sts get-caller-identity --query Account --output text 2>&1) ||
        fail "no AWS account answers: log in, or set AWS_PROFILE and AWS_REGION ($(last_line "$said"))"
}

last_line() {
    printf '%s\n' "$1" | awk 'NF { last = $0 } END { print last }'
}

# What aws answers, as text; or its own words as the error, with a hint before them.
ask() {
    local hint=$1
    shift
    aws "$@" --output text 2>"$scratch/error" || fail "$hint: $(last_line "$(cat "$scratch/error")")"
}

# --- Build ---------------------------------------------------------------------------------------

build() {
    find_python
    "$python" -m deployment.package \
        --python "${python_version:-3.13}" --arch "${arch:-x86_64}" --output "$package"
    if [ -n "$(git status --porcelain -- xapi_etl_processor deployment 2>/dev/null)" ]; then
        echo "  with changes that are not committed"
    fi
}

run_tests() {
    build
    XAPI_PACKAGE=$PWD/$package make --no-print-directory test
}

# --- Functions -----------------------------------------------------------------------------------

# The function's Python, architecture and code, once it is ready to be changed.
find_function() {
    local found
    found=$(ask "no function $1 can be seen" lambda get-function-configuration \
        --function-name "$1" --query '[Runtime, Architectures[0], CodeSha256]')
    read -r function_python function_arch function_code <<END
$found
END
    function_python=${function_python#python}
    ask "$1 does not become active" lambda wait function-active-v2 --function-name "$1" >/dev/null
}

put_code() {
    local deployed here
    deployed=$(ask "$1 was not updated" lambda update-function-code \
        --function-name "$1" --zip-file "fileb://$2" --query CodeSha256)
    here=$("$python" -c 'import base64, hashlib, sys
print(base64.b64encode(hashlib.sha256(open(sys.argv[1], "rb").read()).digest()).decode())' "$2")
    [ "$deployed" = "$here" ] || fail "$1 has other code than $2: somebody deploys at the same time"
    ask "$1 was not updated" lambda wait function-updated-v2 --function-name "$1" >/dev/null
}

publish() {
    ask "$1 gets no version" lambda publish-version --function-name "$1" --query Version
}

check_health() {
    local failed
    printf '{"health_check": true}' >"$scratch/check.json"
    failed=$(ask "$1 does not answer" lambda invoke --function-name "$1" \
        --payload "fileb://$scratch/check.json" --query FunctionError "$scratch/answer.json")
    "$python" - "$scratch/answer.json" "$failed" <<'END' || fail "$1 is not healthy; $2"
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
    find_function "$1"
    if [ -z "$given_package" ]; then
        if [ "${python_version:-$function_python}" != "$function_python" ] ||
            [ "${arch:-$function_arch}" != "$function_arch" ]; then
            fail "$1 has Python $function_python on $function_arch: change the stack's PythonVersion or Architecture first"
        fi
        python_version=$function_python arch=$function_arch
        build
    else
        package=$given_package
    fi
    # What runs now is kept as a version, whoever deployed it, so that it can be put back.
    publish "$1" >/dev/null
    put_code "$1" "$package"
    version=$(publish "$1")
    echo "$1 has the new code, version $version"
    check_health "$1" "./deploy.sh --rollback $1 puts back what ran before"
}

# The versions that have code for this function as it is now, oldest first, are looked through for
# the one before what runs. The stack's placeholder is smaller than any package.
rollback() {
    local previous location
    find_python
    find_aws
    find_function "$1"
    previous=$(ask "versions of $1 cannot be seen" lambda list-versions-by-function \
        --function-name "$1" --query "Versions[?Version!='\$LATEST' && CodeSize>\`100000\` &&
            Runtime=='python$function_python' && Architectures[0]=='$function_arch'
        ].[Version, CodeSha256]" | awk -v running="$function_code" '
            { version[NR] = $1; code[NR] = $2; if ($2 == running) now = NR }
            END {
                for (i = now ? now - 1 : NR; i > 0; i--)
                    if (code[i] != running) { print version[i]; exit }
            }')
    [ -n "$previous" ] ||
        fail "$1 has no earlier version for Python $function_python on $function_arch to put back"
    location=$(ask "version $previous of $1 cannot be seen" lambda get-function \
        --function-name "$1" --qualifier "$previous" --query Code.Location)
    "$python" -c 'import sys, urllib.request; urllib.request.urlretrieve(*sys.argv[1:])' \
        "$location" "$scratch/previous.zip" || fail "version $previous of $1 cannot be fetched"
    put_code "$1" "$scratch/previous.zip"
    echo "$1 has the code of version $previous again"
    check_health "$1" "./deploy.sh --rollback $1 goes one further back"
}

# --- Buckets -------------------------------------------------------------------------------------

stack_output() {
    ask "no stack $1 can be seen" cloudformation describe-stacks --stack-name "$1" \
        --query "Stacks[0].Outputs[?OutputKey=='$2'].OutputValue | [0]"
}

connect() {
    find_python
    find_aws
    local bucket=$1 stack=$2 known connected queue prefix
    known=$(stack_output "$stack" BucketName)
    connected=$(stack_output "$stack" BucketIsConnected)
    queue=$(stack_output "$stack" QueueArn)
    prefix=$(stack_output "$stack" BundlePrefix)
    [ "$known" = "$bucket" ] || fail "stack $stack is for the bucket $known, and lets no other tell\
 its queue: deploy it with ExistingBucketName=$bucket first"
    if [ "$connected" = "by the stack" ]; then
        echo "$bucket was made by $stack, and is connected by it"
        return
    fi
    change_notifications "$bucket" connect "$stack" "$queue" "$prefix"
    echo "$bucket tells the queue of $stack about new bundles"
}

disconnect() {
    find_python
    find_aws
    change_notifications "$1" disconnect "$2"
    echo "$1 tells the queue of $2 nothing"
}

change_notifications() {
    local bucket=$1
    shift
    aws s3api get-bucket-notification-configuration --bucket "$bucket" --output json \
        >"$scratch/now.json" 2>"$scratch/error" ||
        fail "notifications of $bucket cannot be seen: $(last_line "$(cat "$scratch/error")")"
    "$python" -m deployment.notifications "$@" <"$scratch/now.json" >"$scratch/wanted.json" \
        2>"$scratch/error" || fail "$bucket cannot be connected: $(last_line "$(cat "$scratch/error")")"
    [ -s "$scratch/wanted.json" ] || return 0
    ask "notifications of $bucket were not changed" s3api put-bucket-notification-configuration \
        --bucket "$bucket" --notification-configuration "file://$scratch/wanted.json"
}

# --- What is asked for ---------------------------------------------------------------------------

command=build first='' second='' python_version='' arch='' given_package=''
package=xapi-etl-processor.zip

set_command() {
    [ "$command" = build ] || misused "one of --$command and --$1, not both"
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
            [ $# -ge 2 ] || misused "$1 needs the function's NAME"
            first=$2
            shift 2
            ;;
        --connect | --disconnect)
            set_command "${1#--}"
            [ $# -ge 3 ] || misused "$1 needs BUCKET and STACK"
            first=$2 second=$3
            shift 3
            ;;
        --python | --arch | --zip)
            [ $# -ge 2 ] || misused "$1 needs a value"
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
        *) misused "unknown: $1" ;;
    esac
done

case ${python_version:-3.13} in 3.11 | 3.12 | 3.13) ;; *)
    misused "--python is 3.11, 3.12 or 3.13, not $python_version"
    ;;
esac
case ${arch:-x86_64} in x86_64 | arm64) ;; *) misused "--arch is x86_64 or arm64, not $arch" ;; esac
if [ -n "$given_package" ] && [ "$command" != deploy ]; then
    misused "--zip goes with --deploy"
fi

cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case $command in
    build) build ;;
    test) run_tests ;;
    deploy) deploy "$first" ;;
    rollback) rollback "$first" ;;
    connect) connect "$first" "$second" ;;
    disconnect) disconnect "$first" "$second" ;;
esac
