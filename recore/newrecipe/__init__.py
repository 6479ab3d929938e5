"""`recore new-recipe`: a stranger's file is looked at, and a commented recipe for it is written.

look       the file's form: separator, header, encoding, the first rows
words      which names of columns mean what
columns    which column is the user, the item, the time, the rating: by name, else by content, else refused
findings   the whole log, read and split as a run will: sizes, lengths, ties, repeats, cold items
choose     what the recipe sets, each choice with its reason in the numbers of this file
parts      the qualified names of the parts that are written
write      the recipe as text
make       all of these in order

Guesses are stated, never silent; where two readings are equally good the file is refused with the flags that settle
it.
"""
