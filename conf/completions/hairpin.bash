# Completes the commands and options of hairpin in bash: what the installed program prints.
eval "$(hairpin completions bash)"
