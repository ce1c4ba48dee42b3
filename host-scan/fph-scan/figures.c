/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "figures.h"

#include <string.h>
#include <unistd.h>

static void region_free(gpointer p)
{
	struct region *r = p;

	g_free(r->name);
	g_free(r->method);
	g_free(r->why);
	g_free(r);
}

struct census *census_new(const struct target *t, bool content)
{
	struct census *c = g_new0(struct census, 1);

	c->pid = t->pid;
	c->comm = g_strdup(t->comm);
	c->command = g_strdup(*t->cmdline ? *t->cmdline : t->comm);
	c->page_size = sysconf(_SC_PAGESIZE);
	c->content = content;
	c->regions = g_ptr_array_new_with_free_func(region_free);
	return c;
}

void census_free(struct census *c)
{
	if (!c)
		return;
	g_ptr_array_unref(c->regions);
	g_free(c->comm);
	g_free(c->command);
	g_free(c->scanner);
	g_free(c);
}

void census_add_region(struct census *c, const struct area *a)
{
	struct region *r = g_new0(struct region, 1);

	r->number = c->regions->len;
	r->start = a->start;
	r->end = a->end;
	r->name = g_strdup(a->first->name);
	for (guint f = 0; f < F_MAX; f++)
		r->v[f] = UNKNOWN;
	r->v[F_SIZE] = a->end - a->start;
	g_ptr_array_add(c->regions, r);
}

/* Figures that a scan finds nothing of are 0, not unknown */
void census_begin(struct census *c, struct region *r)
{
	r->v[F_PRESENT] = r->v[F_SWAPPED] = 0;
	if (strcmp(c->scanner, fph_scanner_kind_name(FPH_SCANNER_PAGEMAP)) != 0)
		r->v[F_HUGE] = 0;
	if (c->content)
		r->v[F_ZERO] = 0;
	if (strcmp(r->method, "none") != 0)
		r->v[F_UNMAPPED] = r->v[F_ZERO_MAPPED] = 0;
}

static void add(struct region *r, enum figure f, guint64 bytes)
{
	r->v[f] = (r->v[f] == UNKNOWN ? 0 : r->v[f]) + bytes;
}

void census_add_pages(struct region *r, guint64 len, guint32 page)
{
	if (page & FPH_PAGE_SWAPPED)
		add(r, F_SWAPPED, len);
	if (!(page & FPH_PAGE_PRESENT))
		return;
	if (page & FPH_PAGE_ZERO_PAGE)
		return;
	add(r, F_PRESENT, len);
	if (page & FPH_PAGE_HUGE)
		add(r, F_HUGE, len);
	if (page & FPH_PAGE_ZERO_CONTENT)
		add(r, F_ZERO, len);
}

void census_add_found(struct region *r, guint64 len, enum fph_reason why)
{
	add(r, why == FPH_UNMAPPED ? F_UNMAPPED : F_ZERO_MAPPED, len);
}

void census_sum_up(struct census *c)
{
	for (guint f = 0; f < F_MAX; f++) {
		c->sum[f] = UNKNOWN;
		for (guint i = 0; i < c->regions->len; i++) {
			const struct region *r = c->regions->pdata[i];

			if (r->v[f] != UNKNOWN)
				c->sum[f] = (c->sum[f] == UNKNOWN ? 0 : c->sum[f]) + r->v[f];
		}
	}
}
