# Completion of smai for fish.

function __smai_complete
    # Variables may be set before the command: they are no words of it.
    set -l words (commandline -cp | string collect | string replace -r '^(\s*\w+=\S*\s+)+' '' | string collect)
    set -l token (commandline -ct)
    # Fish offers whole words: what is offered for --option=value begins with --option=.
    set -l before (string match -r -- '^--[^=]+=' $token)

    for line in (env COMP_WORDS="$words" COMP_CWORD="$token" _SMAI_COMPLETE=fish_complete smai 2>/dev/null)
        set -l item (string split -m 1 , -- $line)
        switch $item[1]
            case plain
                echo -- "$before$item[2]"
            case file
                for path in (__fish_complete_path (string replace -- "$before" '' "$token"))
                    echo -- "$before$path"
                end
        end
    end
end

complete --command smai --no-files --arguments '(__smai_complete)'
