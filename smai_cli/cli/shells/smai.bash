# Completion of smai for bash 4.4 or newer.

_smai() {
    local IFS=$'\n' line=$COMP_LINE words=() before='' word type value

    # Bash breaks words at : and = as well (COMP_WORDBREAKS). Pieces without a blank between them are one word to
    # smai; bash replaces the last piece only, so what stands before it must not be offered again.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD + 1}"; do
        if [[ -n $word && ${#words[@]} -gt 0 && $line == "$word"* ]]; then
            before=${words[-1]}
            words[-1]+=$word
            [[ $word != *[^:=]* ]] && before=${words[-1]}
        else
            before=''
            words+=("$word")
        fi
        line=${line#*"$word"}
    done

    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            plain)
                [[ ${words[-1]} == --*=* ]] && value=${words[-1]%%=*}=$value
                COMPREPLY+=("${value#"$before"}")
                ;;
            file) compopt -o default ;;
        esac
    done <<< "$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) _SMAI_COMPLETE=bash_complete \
        "${1/#~\//${HOME-}/}" 2> /dev/null)"
}

complete -o nosort -F _smai smai
