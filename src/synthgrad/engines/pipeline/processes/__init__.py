"""Ranks as processes of this machine: started together, or led by the process that starts them."""
