/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/magic.h>

#include "scanner.h"

#ifndef HUGETLBFS_MAGIC
#define HUGETLBFS_MAGIC 0x958458f6
#endif

static const char *const backing_names[] = {
	[FPH_BACKING_UNKNOWN] = "unknown",
	[FPH_BACKING_ANON] = "anon",
	[FPH_BACKING_ANON_SHARED] = "anon-shared",
	[FPH_BACKING_SHMEM] = "shmem",
	[FPH_BACKING_SHMEM_PRIVATE] = "shmem-private",
	[FPH_BACKING_HUGETLB] = "hugetlb",
	[FPH_BACKING_FILE] = "file",
	[FPH_BACKING_GUEST_MEMFD] = "guest-memfd",
};

static const char *const method_names[] = {
	[FPH_METHOD_NONE] = "none",
	[FPH_METHOD_PAGEMAP_SCAN] = "pagemap-scan",
	[FPH_METHOD_PAGEMAP] = "pagemap",
	[FPH_METHOD_SEEK] = "seek",
	[FPH_METHOD_PAGEMAP_SCAN_SEEK] = "pagemap-scan+seek",
	[FPH_METHOD_PAGEMAP_SEEK] = "pagemap+seek",
};

_Static_assert(sizeof(backing_names) / sizeof(backing_names[0]) == FPH_BACKING_MAX,
	       "each backing has a name");
_Static_assert(sizeof(method_names) / sizeof(method_names[0]) == FPH_METHOD_MAX,
	       "each method has a name");

const char *fph_backing_name(enum fph_backing backing)
{
	if ((unsigned int)backing >= FPH_BACKING_MAX)
		return "unknown";
	return backing_names[backing];
}

const char *fph_method_name(enum fph_method method)
{
	if ((unsigned int)method >= FPH_METHOD_MAX)
		return "none";
	return method_names[method];
}

/*
 * Facts about a region: its flags, as they are, and what can be seen from
 * here. Flags this library does not know yet mean something, so they forbid.
 */
#define KNOWN_FLAGS		((FPH_REGION_PAGED << 1) - 1)
#define FACT_NO_WITNESS		(1u << 25)	/* cachestat() does not work */
#define FACT_BIG_PAGE		(1u << 26)	/* backing page > host page */
#define FACT_UNKNOWN_FLAGS	(1u << 27)
#define FACT_BAD_FD		(1u << 28)	/* fstat() or fstatfs() failed */
#define FACT_NO_TABLES		(1u << 29)	/* page tables cannot be read */
#define FACT_NO_SEEK		(1u << 30)	/* lseek() may lie */
#define FACT_ENTRIES		(1u << 31)	/* FPH_SCANNER_PAGEMAP is in use */

#define ANY	FPH_BACKING_MAX

/* Stand for what the scanner says */
static const char WHY_NO_TABLES[] = "page tables cannot be read";
static const char WHY_NO_SEEK[] = "lseek() cannot be relied upon";
static const char WHY_NO_WITNESS[] = "cachestat() cannot be asked";

/* What it is for, is in scan.c, and for people here */
#define LSEEK_ALONE ": without it, pages that the kernel is moving could pass for holes"

static const struct fph_why witness_why[] = {
	{ ENOSYS, "no cachestat() (ENOSYS): the kernel is older than Linux 6.5, or a sandbox refuses it" LSEEK_ALONE },
	{ EPERM, "cachestat() is not permitted (EPERM): it takes a file that is open for writing, that one owns or may write to, and no sandbox that refuses it" LSEEK_ALONE },
	{ EACCES, "cachestat() is not permitted (EACCES): refused by a security module (AppArmor, SELinux) or a sandbox" LSEEK_ALONE },
	{ EOPNOTSUPP, "cachestat() does not work on this file (EOPNOTSUPP)" LSEEK_ALONE },
	{ 0, "cachestat() does not work here" LSEEK_ALONE },
};

/*
 * The decision: the first row whose backing and fact are the region's. A row
 * without a fact always matches. Only the rows at the end find anything, and what
 * no row allows finds nothing.
 */
static const struct {
	enum fph_backing backing;
	uint32_t fact;
	enum fph_method method;
	const char *why;
} table[] = {
	/* What the owner says: content that does not start as zero, or changes
	 * behind the migration's back. */
	{ ANY, FACT_UNKNOWN_FLAGS, FPH_METHOD_NONE,
	  "the region has properties that this version of libfph does not know" },
	{ ANY, FPH_REGION_NOT_RAM, FPH_METHOD_NONE,
	  "not guest RAM: ROM, tables and video memory may hold content at the destination" },
	{ ANY, FPH_REGION_GUEST_MEMFD, FPH_METHOD_NONE,
	  "guest_memfd: the host cannot see the guest's private memory" },
	{ ANY, FPH_REGION_PAGED, FPH_METHOD_NONE,
	  "memory that a pager provides (userfaultfd): what is absent is still owed, and not zero" },
	{ ANY, FPH_REGION_READONLY, FPH_METHOD_NONE,
	  "read-only memory: its content comes from elsewhere" },
	{ ANY, FPH_REGION_PMEM, FPH_METHOD_NONE,
	  "persistent memory: the destination may hold old content" },
	{ ANY, FPH_REGION_FOREIGN, FPH_METHOD_NONE,
	  "memory handed in by its owner: nothing is known of what lies behind it" },
	{ ANY, FPH_REGION_RESIZABLE, FPH_METHOD_NONE,
	  "resizable memory: not all of it is in use" },

	/* A migration of hugetlb pages clears entries for a while, page table
	 * sharing takes 1 GiB of them away, and lseek() always says data. Even
	 * as many entries as the file has pages prove nothing while the guest
	 * runs: one page may come and another go between the two counts. */
	{ FPH_BACKING_HUGETLB, 0, FPH_METHOD_NONE,
	  "hugetlb pages: absence in page tables proves nothing" },

	{ ANY, FACT_BIG_PAGE, FPH_METHOD_NONE,
	  "pages larger than the host's: absence in page tables proves nothing" },

	{ ANY, FACT_BAD_FD, FPH_METHOD_NONE,
	  "the descriptor behind the memory cannot be examined" },
	{ FPH_BACKING_FILE, 0, FPH_METHOD_NONE,
	  "a file or device outside tmpfs: what is absent has the file's content, and holes of the file prove nothing" },
	{ ANY, FPH_REGION_NAMED_FILE, FPH_METHOD_NONE,
	  "a named file: the destination may hold an old file of that name" },

	/* Pages that are swapped out, or written by another process, look
	 * absent, and there is no file to ask. */
	{ FPH_BACKING_ANON_SHARED, 0, FPH_METHOD_NONE,
	  "shared anonymous memory without a descriptor: absence in page tables proves nothing" },

	{ ANY, FACT_NO_TABLES, FPH_METHOD_NONE, WHY_NO_TABLES },

	/* Transparent huge pages, KSM, swap, mlock and markers of userfaultfd all
	 * leave something in the page table, so that nothing means nothing. */
	{ FPH_BACKING_ANON, FACT_ENTRIES, FPH_METHOD_PAGEMAP, NULL },
	{ FPH_BACKING_ANON, 0, FPH_METHOD_PAGEMAP_SCAN, NULL },

	{ ANY, FACT_NO_SEEK, FPH_METHOD_NONE, WHY_NO_SEEK },
	{ ANY, FACT_NO_WITNESS, FPH_METHOD_NONE, WHY_NO_WITNESS },
	{ FPH_BACKING_SHMEM, 0, FPH_METHOD_SEEK, NULL },
	{ FPH_BACKING_SHMEM_PRIVATE, FACT_ENTRIES, FPH_METHOD_PAGEMAP_SEEK, NULL },
	{ FPH_BACKING_SHMEM_PRIVATE, 0, FPH_METHOD_PAGEMAP_SCAN_SEEK, NULL },

	{ ANY, 0, FPH_METHOD_NONE, "unknown kind of memory" },
};

static enum fph_backing file_backing(const struct fph_region *r,
				     const struct fph_sys_file *file)
{
	if (file->fs_magic == HUGETLBFS_MAGIC)
		return FPH_BACKING_HUGETLB;
	/* /dev is a tmpfs too: a device node there says TMPFS_MAGIC */
	if (!file->regular || file->fs_magic != TMPFS_MAGIC)
		return FPH_BACKING_FILE;
	if (r->flags & FPH_REGION_SHARED)
		return FPH_BACKING_SHMEM;
	return FPH_BACKING_SHMEM_PRIVATE;
}

static enum fph_backing find_backing(struct fph_scanner *s,
				     const struct fph_region *r, uint32_t *facts)
{
	struct fph_sys_file file = { 0 };

	if (r->flags & FPH_REGION_GUEST_MEMFD)
		return FPH_BACKING_GUEST_MEMFD;
	if (r->page_size > s->page_size)
		*facts |= FACT_BIG_PAGE;
	if (r->fd < 0 && r->page_size > s->page_size)
		return FPH_BACKING_HUGETLB;	/* MAP_HUGETLB without a file */
	if (r->fd < 0)
		return r->flags & FPH_REGION_SHARED ? FPH_BACKING_ANON_SHARED :
						      FPH_BACKING_ANON;
	if (s->sys->file_info(r->fd, &file) < 0) {
		*facts |= FACT_BAD_FD;
		return FPH_BACKING_UNKNOWN;
	}
	return file_backing(r, &file);
}

static uint32_t find_facts(const struct fph_region *r)
{
	uint32_t facts = r->flags & KNOWN_FLAGS;

	if (r->flags & ~KNOWN_FLAGS)
		facts |= FACT_UNKNOWN_FLAGS;
	if (r->used != r->max)
		facts |= FPH_REGION_RESIZABLE;
	return facts;
}

static bool aligned(uint64_t n, uint64_t to)
{
	return !(n & (to - 1));
}

static int check(const struct fph_scanner *s, const struct fph_region *r)
{
	uintptr_t host = (uintptr_t)r->host;

	if (!r->page_size || !aligned(r->page_size, r->page_size) ||
	    r->page_size < s->page_size)
		return -EINVAL;
	if (r->used > r->max || r->max > UINTPTR_MAX - host)
		return -EINVAL;
	if (!aligned(host, s->page_size))
		return -EINVAL;
	if (r->fd >= 0 && (!aligned(r->fd_offset, s->page_size) ||
			   r->max > INT64_MAX ||
			   r->fd_offset > INT64_MAX - r->max))
		return -EINVAL;
	return 0;
}

int fph_region_read(const struct fph_scanner *s, const struct fph_region *from,
		    struct fph_region *ret)
{
	int err = fph_sized_in(ret, sizeof(*ret), from, FPH_REGION_LEAST);

	/* A caller built against a newer header may say more than is known here */
	if (err > 0)
		ret->flags |= ~KNOWN_FLAGS;
	return err < 0 ? err : check(s, ret);
}

int fph_region_classify(struct fph_scanner *s, const struct fph_region *r,
			struct fph_verdict *ret)
{
	struct fph_region known;
	const char *no_tables = NULL;
	enum fph_backing backing;
	int64_t pages = 0;
	uint32_t facts;
	size_t i = 0;
	int err;

	err = fph_region_read(s, r, &known);
	if (err < 0)
		return err;
	r = &known;
	facts = find_facts(r);
	backing = find_backing(s, r, &facts);
	if (fph_scanner_error(s, &no_tables) < 0)
		facts |= FACT_NO_TABLES;
	if (s->no_seek)
		facts |= FACT_NO_SEEK;
	if (backing == FPH_BACKING_SHMEM || backing == FPH_BACKING_SHMEM_PRIVATE)
		pages = s->sys->file_pages(r->fd, r->fd_offset, s->page_size);
	if (pages < 0)
		facts |= FACT_NO_WITNESS;
	if (s->kind == FPH_SCANNER_PAGEMAP)
		facts |= FACT_ENTRIES;

	/* The last row matches everything */
	while ((table[i].backing != ANY && table[i].backing != backing) ||
	       (table[i].fact && !(table[i].fact & facts)))
		i++;

	ret->backing = backing;
	ret->method = table[i].method;
	ret->why = table[i].why;
	if (ret->why == WHY_NO_TABLES)
		ret->why = no_tables;
	else if (ret->why == WHY_NO_SEEK)
		ret->why = s->no_seek;
	else if (ret->why == WHY_NO_WITNESS)
		ret->why = fph_why(witness_why, (int)pages);
	return 0;
}
