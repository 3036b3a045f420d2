# Without Docker: what compose.yaml gives to whoever works, with everything on this machine. Read it into a shell, with team.env beside you:
#   . deploy/local.sh
# What else stands in team.env is known to the shell, and to no program that it starts: a worker needs no password but its own.

# A value is taken as it stands, as Docker Compose takes it: the shell evaluates nothing of it. What both would read otherwise is refused, by its name alone.
_team_env() {
    _number=0 _return=$(printf '\r')
    while IFS= read -r _line || [ -n "$_line" ]; do
        _number=$((_number + 1)) _line=${_line%"$_return"}
        case ${_line#"${_line%%[![:space:]]*}"} in '' | '#'*) continue ;; esac
        _name=${_line%%=*} _value=${_line#*=} _said='' _wrong=''
        case $_line in *=*) ;; *) _name='' ;; esac
        case $_name in '' | [!A-Z]* | *[!A-Z0-9_]*) _wrong='this is no NAME=VALUE with nothing around the =' _name='' ;; esac
        case $_value in
        \'*\')
            _value=${_value#?} _value=${_value%?}
            while [ -z "$_wrong" ]; do
                case $_value in *\'*) ;; *) break ;; esac
                case ${_value%%\'*} in
                *\\\\ | *[!\\] | '') _wrong="a single quote inside of single quotes is written \\'" ;;
                *) _said=$_said${_value%%\'*} _said=${_said%?}\' _value=${_value#*\'} ;;
                esac
            done
            case $_value in *\\) _wrong='no value can end with a backslash' ;; esac
            _value=$_said$_value
            ;;
        *[\'\"\`\$\\\#]* | *[[:space:]] | [[:space:]]*) _wrong="${_wrong:-write the value in single quotes}" ;;
        esac
        if [ -n "$_wrong" ]; then
            echo "team.env:$_number${_name:+ ($_name)}: $_wrong" >&2
            return 1
        fi
        eval "$_name=\$_value" # the name is checked above, and the value is not evaluated
    done <./team.env
}

if [ ! -r ./team.env ]; then
    echo "no team.env can be read here: cp deploy/team.env.example team.env" >&2
    return 1
fi
_team_env || return 1
unset -f _team_env
unset _number _return _line _name _value _said _wrong
set -a
DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true PREFECT_SERVER_ANALYTICS_ENABLED=false
AWS_ACCESS_KEY_ID=$S3_ACCESS_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET_KEY AWS_DEFAULT_REGION=us-east-1 AWS_ENDPOINT_URL_S3=http://127.0.0.1:7070
PREFECT_API_URL=http://127.0.0.1:4200/api PREFECT_API_AUTH_STRING=$PREFECT_LOGIN
MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_TRACKING_USERNAME=$MLFLOW_USER MLFLOW_TRACKING_PASSWORD=$MLFLOW_PASSWORD
RECOMPRESS_LEDGER=postgresql://ledger@127.0.0.1:5432/ledger PGPASSWORD=$LEDGER_DB_PASSWORD
RECOMPRESS_ROOT=$PROJECT HF_TOKEN=${HF_TOKEN:-}
set +a
