"""What an answer is: its chunks, its choices, when it is complete, what a server's errors mean. Imports no package."""
