"""`voxmill run`: the steps from recordings to a judged model as one flow, in one folder.

FOLDER/flow.yaml          the settings, with `--set` applied
FOLDER/index.html         the state page
FOLDER/state/<step>.json  fingerprint, times and result of a step
FOLDER/logs/<step>.log    what a step printed
FOLDER/<step>/            what a step made; steps that amend a corpus have no folder
FOLDER/superseded/        earlier outputs of steps that were done again with other settings
"""
