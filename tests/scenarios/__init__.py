"""The rule book as tables: given a book, a command, and the reports it must cause. One file per rule, in plain text.

    == an iceberg shows a slice at a time              a scenario: three funded accounts, two markets, nothing else
    alice a: sell 5@100 display 2                      `a` names the order
    > alice: new a sell 5@100 open 5 filled 0          every report that must come, in order
    book                                               asks for the depth
    > asks 2@100
    count bob buy 2@100 ; 3 times sell 1@90            only how often what is said; a command several times
    again                                              the last frame once more

`language` reads and runs it against one engine; `python -m tests.scenarios --write` fills in what the engines say where
the file says nothing yet, to be read and judged by whoever wrote the scenario.
"""
