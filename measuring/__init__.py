"""What the programs that measure share: metrics, judging of clips, references for the speed, tables and charts."""
