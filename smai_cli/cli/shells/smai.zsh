#compdef smai
# Completion of smai for zsh.

_smai() {
    local -a lines plain described
    local type value help files=''

    lines=("${(@f)$(COMP_WORDS="${(F)words}" COMP_CWORD=$((CURRENT - 1)) _SMAI_COMPLETE=zsh_complete \
        command "${(Q)${words[1]/#\~\//$HOME/}}" 2> /dev/null)}")
    for type value help in "${lines[@]}"; do
        case $type in
            plain) if [[ $help == _ ]]; then plain+=("$value"); else described+=("$value:$help"); fi ;;
            file) files=yes ;;
        esac
    done

    # What is offered is the value of --option=value.
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='
    [[ -n $files ]] && _path_files -f
    (( $#described )) && _describe -V smai described
    (( $#plain )) && compadd -V smai -a plain
}

# A file in $fpath is the function itself; a script that is evaluated defines it.
if [[ $funcstack[1] == _smai ]]; then
    _smai "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _smai smai
fi
