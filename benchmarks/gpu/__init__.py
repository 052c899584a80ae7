"""What somebody with one GPU runs first: every path for real, in under ten minutes and offline.

`make gpu` compares the library on a small model with the CPU, then writes a 7B of random weights
(the shape of Mistral-7B), loads it in NF4 and measures what a run measures: time and memory of each
next to what `--plan` says. The rates that it measures replace those of the card in
`lib/cards.csv`. A section that fails ends alone; what there is no time for is left out.
`--tiny` rehearses it with a small model, on whatever is there.
"""
