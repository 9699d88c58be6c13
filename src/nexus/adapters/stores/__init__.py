"""Event stores: what turns the store port into SQL, one folder per database, and what they have in common beside them.

No rule of the domain and no read model is known here: tables and rows arrive as values. Only `recording` and the
stores themselves import the event sourcing library; reading a view needs nothing but the database's driver.
"""
