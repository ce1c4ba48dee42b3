# SPDX-License-Identifier: LGPL-2.1-or-later
# A header, with more at the end of each struct that begins with its size
/^struct [a-z_]+ \{$/ { first = NR + 1 }
NR == first && /\tsize_t sz;/ { sized = 1 }
/^};/ && sized { print "\tuint64_t newer[4];"; sized = 0 }
{ print }
