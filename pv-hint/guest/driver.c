// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-fph: tells the host, when it asks, which pages of this guest are free,
 * so that a live migration can leave them out. The balloon is in balloon.c.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#ifndef FPH_HAVE_VIRTIO_SHUTDOWN
#include <linux/reboot.h>
#endif
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "fph.h"

/* How long the device may keep all frames; a healthy one takes microseconds. */
#define FRAME_TIMEOUT	(5 * HZ)

#define ENCODINGS	((1 << VIRTIO_FPH_ENC_RUNS) | (1 << VIRTIO_FPH_ENC_BITMAP))

static const char * const walk_names[] = {
	[VIRTIO_FPH_WALK_PFN] = "pfn",
	[VIRTIO_FPH_WALK_LIST] = "list",
};

static unsigned int walk_param = VIRTIO_FPH_WALK_PFN;

static int walk_param_set(const char *val, const struct kernel_param *kp)
{
	int kind = sysfs_match_string(walk_names, val);

	if (kind < 0) {
		pr_err("walk is one of: pfn list\n");
		return kind;
	}
	WRITE_ONCE(walk_param, kind);
	return 0;
}

static int walk_param_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", walk_names[READ_ONCE(walk_param)]);
}

static const struct kernel_param_ops walk_param_ops = {
	.set = walk_param_set,
	.get = walk_param_get,
};
module_param_cb(walk, &walk_param_ops, NULL, 0644);
__MODULE_PARM_TYPE(walk, "charp");
MODULE_PARM_DESC(walk, "how to find free pages: pfn (default; locks are held for a bounded time) or list (quick while memory is not fragmented)");

/* What is not unbound has to say so, where the kernel knows a word for it. */
#ifndef FPH_HAVE_WQ_PERCPU
#define WQ_PERCPU	0
#endif

static struct workqueue_struct *fph_wq;

/* Frames. Only the work has them, so there is no lock. */

/* Return: is there a free frame? */
static bool reclaim_frames(struct fph *fph)
{
	struct fph_frame *frame;
	unsigned int len;

	while ((frame = virtqueue_get_buf(fph->report_vq, &len)))
		fph->free[fph->nr_free++] = frame;
	return fph->nr_free;
}

static int send(struct fph *fph, unsigned int encoding, unsigned int flags, u32 count, u64 base,
		size_t payload_len)
{
	struct fph_frame *frame;
	int ret;

	if (!wait_event_idle_timeout(fph->wait, !fph_wanted(fph) || reclaim_frames(fph),
				     FRAME_TIMEOUT)) {
		dev_warn(&fph->vdev->dev, "the device does not take the report\n");
		return -ETIMEDOUT;
	}
	if (!fph_wanted(fph))
		return -ECANCELED;

	frame = fph->free[fph->nr_free - 1];
	swap(frame->payload, fph->encoder.payload);
	frame->head = (struct virtio_fph_report) {
		.id = cpu_to_le32(fph->report_id),
		.encoding = cpu_to_le16(encoding),
		.flags = cpu_to_le16(flags),
		.seq = cpu_to_le32(fph->stats.frames),
		.count = cpu_to_le32(count),
		.base = cpu_to_le64(base),
	};
	sg_init_table(frame->sg, ARRAY_SIZE(frame->sg));
	sg_set_buf(&frame->sg[0], &frame->head, sizeof(frame->head));
	sg_set_buf(&frame->sg[1], frame->payload, payload_len);
	/* No reclaim here, nor reserves: there is room for direct descriptors. */
	ret = virtqueue_add_outbuf(fph->report_vq, frame->sg, ARRAY_SIZE(frame->sg), frame,
				   GFP_NOWAIT | __GFP_NOWARN);
	if (ret)
		return ret;
	fph->nr_free--;
	fph->stats.frames++;
	virtqueue_kick(fph->report_vq);
	return 0;
}

static int send_pages(struct fph_encoder *e, unsigned int encoding, u32 count, u64 base)
{
	struct fph *fph = container_of(e, struct fph, encoder);

	return send(fph, encoding, 0, count, base,
		    encoding == VIRTIO_FPH_ENC_RUNS ? count * sizeof(__le64) : count / 8);
}

static int send_stats(struct fph *fph, unsigned int flags)
{
	struct virtio_fph_stats stats = {
		.walk_ns = cpu_to_le64(fph->stats.walk_ns),
		.lock_ns = cpu_to_le64(fph->stats.lock_ns),
		.pages = cpu_to_le64(fph->stats.pages),
		.entries = cpu_to_le64(fph->stats.entries),
		.walk = cpu_to_le32(fph->stats.walk),
	};

	memcpy(fph->encoder.payload, &stats, sizeof(stats));
	return send(fph, VIRTIO_FPH_ENC_STATS, VIRTIO_FPH_REPORT_LAST | flags, 0, 0, sizeof(stats));
}

/*
 * Answers the last request. A report that is given up has no last frame: the
 * device asked for that, or is not there to read it. One that fails says so.
 */
static void fph_report(struct work_struct *work)
{
	struct fph *fph = container_of(work, struct fph, work);
	unsigned int encodings;
	u64 arrived_ns;
	bool pending;
	int ret;

	spin_lock_irq(&fph->lock);
	pending = fph->pending;
	fph->pending = false;
	fph->report_generation = fph->generation;
	fph->report_id = fph->id;
	encodings = fph->encodings & ENCODINGS;
	arrived_ns = fph->arrived_ns;
	spin_unlock_irq(&fph->lock);
	if (!pending)
		return;

	memset(&fph->stats, 0, sizeof(fph->stats));
	fph->stats.walk = READ_ONCE(walk_param);
	if (encodings) {
		fph_encoder_start(&fph->encoder, encodings);
		ret = fph_walk(fph, fph->stats.walk);
		fph->stats.walk_ns = ktime_get_ns() - arrived_ns;
		if (!ret)
			ret = fph_encoder_finish(&fph->encoder);
		fph->stats.pages = fph->encoder.pages;
		fph->stats.entries = fph->encoder.entries;
	} else {
		/* None that we know: say so, rather than let the device wait. */
		ret = -EOPNOTSUPP;
	}
	if (!ret)
		ret = send_stats(fph, 0);
	/* What failed before may be possible now, or the host will have to wait. */
	if (ret && ret != -ECANCELED)
		send_stats(fph, VIRTIO_FPH_REPORT_ABORTED);

	spin_lock_irq(&fph->lock);
	if (!ret) {
		fph->results.last = fph->stats;
		fph->results.reports++;
	} else {
		fph->results.aborted++;
	}
	spin_unlock_irq(&fph->lock);
}

static void report_done(struct virtqueue *vq)
{
	struct fph *fph = vq->vdev->priv;

	wake_up(&fph->wait);
}

/* Commands. */

static void post_command(struct fph *fph, struct fph_command *command)
{
	struct scatterlist sg;

	sg_init_one(&sg, &command->c, sizeof(command->c));
	/* One descriptor for each buffer that came back: this cannot fail. */
	virtqueue_add_inbuf(fph->command_vq, &sg, 1, command, GFP_ATOMIC);
}

static void take_command(struct fph *fph, const struct virtio_fph_command *command)
{
	u32 id = le32_to_cpu(command->id);

	switch (le16_to_cpu(command->op)) {
	case VIRTIO_FPH_OP_REPORT:
		fph->id = id;
		fph->encodings = le16_to_cpu(command->encodings);
		fph->arrived_ns = ktime_get_ns();
		fph->pending = true;
		break;
	case VIRTIO_FPH_OP_STOP:
		if (id != fph->id)
			return;
		fph->pending = false;
		break;
	default:
		return;
	}
	/* Whatever walk is under way, nobody waits for it. */
	WRITE_ONCE(fph->generation, fph->generation + 1);
}

static void command_done(struct virtqueue *vq)
{
	struct fph *fph = vq->vdev->priv;
	struct fph_command *command;
	unsigned long flags;
	unsigned int len;

	spin_lock_irqsave(&fph->lock, flags);
	if (!fph->down) {
		while ((command = virtqueue_get_buf(vq, &len))) {
			if (len >= sizeof(command->c))
				take_command(fph, &command->c);
			post_command(fph, command);
		}
		virtqueue_kick(vq);
		if (fph->pending)
			queue_work(fph_wq, &fph->work);
	}
	spin_unlock_irqrestore(&fph->lock, flags);
	wake_up(&fph->wait);
}

/* From here on no command is taken, and a walk under way gives up. */
static void go_down(struct fph *fph)
{
	unsigned long flags;

	spin_lock_irqsave(&fph->lock, flags);
	fph->down = true;
	fph->pending = false;
	WRITE_ONCE(fph->generation, fph->generation + 1);
	spin_unlock_irqrestore(&fph->lock, flags);
	wake_up(&fph->wait);
}

static void fph_config_changed(struct virtio_device *vdev)
{
	struct fph *fph = vdev->priv;

	if (vdev->config->get_status(vdev) & VIRTIO_CONFIG_S_NEEDS_RESET) {
		dev_err(&vdev->dev,
			"the device gave up, it needs a reset: load this module again\n");
		go_down(fph);
		fph_balloon_down(fph);
		return;
	}
	fph_balloon_config_changed(fph);
}

/* What a report cost: attributes of the device, in the folder "report". */

#define FPH_ATTR(name, format, expr)						\
static ssize_t name##_show(struct device *dev, struct device_attribute *attr, char *buf)	\
{										\
	struct fph *fph = dev_to_virtio(dev)->priv;				\
	struct fph_results r;							\
										\
	spin_lock_irq(&fph->lock);						\
	r = fph->results;							\
	spin_unlock_irq(&fph->lock);						\
	return sysfs_emit(buf, format "\n", expr);				\
}										\
static DEVICE_ATTR_RO(name)

FPH_ATTR(walk_ns, "%llu", r.last.walk_ns);
FPH_ATTR(lock_ns, "%llu", r.last.lock_ns);
FPH_ATTR(pages, "%llu", r.last.pages);
FPH_ATTR(entries, "%llu", r.last.entries);
FPH_ATTR(frames, "%u", r.last.frames);
FPH_ATTR(walk, "%s", walk_names[r.last.walk]);
FPH_ATTR(reports, "%llu", r.reports);
FPH_ATTR(aborted, "%llu", r.aborted);

static struct attribute *fph_attrs[] = {
	&dev_attr_walk_ns.attr,
	&dev_attr_lock_ns.attr,
	&dev_attr_pages.attr,
	&dev_attr_entries.attr,
	&dev_attr_frames.attr,
	&dev_attr_walk.attr,
	&dev_attr_reports.attr,
	&dev_attr_aborted.attr,
	NULL
};

static const struct attribute_group fph_group = {
	.name = "report",
	.attrs = fph_attrs,
};

static const struct attribute_group *fph_groups[] = { &fph_group, &fph_balloon_group, NULL };

/* The device comes and goes. */

static int find_queues(struct fph *fph, struct virtqueue *vqs[])
{
	unsigned int n = fph->balloon ? VIRTIO_FPH_Q_MAX : VIRTIO_FPH_Q_BALLOON;
#ifndef FPH_HAVE_VIRTQUEUE_INFO
	static const char * const names[] = { "command", "report", "balloon" };
	vq_callback_t *callbacks[] = { command_done, report_done, fph_balloon_done };

	return virtio_find_vqs(fph->vdev, n, vqs, callbacks, names, NULL);
#else
	struct virtqueue_info info[] = {
		{ "command", command_done },
		{ "report", report_done },
		{ "balloon", fph_balloon_done },
	};

	return virtio_find_vqs(fph->vdev, n, vqs, info, NULL);
#endif
}

static void free_buffers(struct fph *fph)
{
	unsigned int i;

	for (i = 0; i < FPH_FRAMES && fph->frames[i]; i++) {
		kfree(fph->frames[i]->payload);
		kfree(fph->frames[i]);
	}
	kfree(fph->encoder.payload);
	kfree(fph->encoder.spare);
}

/* All memory that a report takes, so that it needs none while it looks for it. */
static int alloc_buffers(struct fph *fph)
{
	unsigned int i;

	fph->encoder.payload = kmalloc(VIRTIO_FPH_PAYLOAD_MAX, GFP_KERNEL);
	fph->encoder.spare = kmalloc(VIRTIO_FPH_PAYLOAD_MAX, GFP_KERNEL);
	if (!fph->encoder.payload || !fph->encoder.spare)
		goto err;
	for (i = 0; i < FPH_FRAMES; i++) {
		fph->frames[i] = kzalloc(sizeof(*fph->frames[i]), GFP_KERNEL);
		if (!fph->frames[i])
			goto err;
		fph->frames[i]->payload = kmalloc(VIRTIO_FPH_PAYLOAD_MAX, GFP_KERNEL);
		if (!fph->frames[i]->payload)
			goto err;
	}
	return 0;
err:
	free_buffers(fph);
	return -ENOMEM;
}

static int go_up(struct fph *fph)
{
	struct virtqueue *vqs[VIRTIO_FPH_Q_MAX];
	unsigned int size, i;
	int ret;

	ret = find_queues(fph, vqs);
	if (ret)
		return ret;
	fph->command_vq = vqs[VIRTIO_FPH_Q_COMMAND];
	fph->report_vq = vqs[VIRTIO_FPH_Q_REPORT];

	size = virtqueue_get_vring_size(fph->report_vq) / ARRAY_SIZE(fph->frames[0]->sg);
	if (!size || (fph->balloon && fph_balloon_up(fph, vqs[VIRTIO_FPH_Q_BALLOON]))) {
		dev_err(&fph->vdev->dev, "the %s queue is too small\n",
			size ? "balloon" : "report");
		fph->vdev->config->del_vqs(fph->vdev);
		return -EINVAL;
	}
	fph->nr_free = min_t(unsigned int, size, FPH_FRAMES);
	memcpy(fph->free, fph->frames, fph->nr_free * sizeof(*fph->free));

	spin_lock_irq(&fph->lock);
	fph->down = false;
	size = virtqueue_get_vring_size(fph->command_vq);
	for (i = 0; i < min_t(unsigned int, size, FPH_COMMANDS); i++)
		post_command(fph, &fph->commands[i]);
	spin_unlock_irq(&fph->lock);

	virtio_device_ready(fph->vdev);
	spin_lock_irq(&fph->lock);
	virtqueue_kick(fph->command_vq);
	spin_unlock_irq(&fph->lock);
	fph_balloon_start(fph);
	return 0;
}

/* The device is reset, and touches no memory of ours any more. */
static void quiesce(struct fph *fph)
{
	fph_balloon_down(fph);
	fph_balloon_leave(fph);
	go_down(fph);
	cancel_work_sync(&fph->work);
	virtio_reset_device(fph->vdev);
}

static void take_down(struct fph *fph)
{
	struct virtqueue *vq;

	fph_balloon_halt(fph);
	fph_balloon_empty(fph);
	quiesce(fph);
	/* Buffers are mapped for the device until they are taken out. */
	virtio_device_for_each_vq(fph->vdev, vq)
		while (virtqueue_detach_unused_buf(vq))
			;
	fph->vdev->config->del_vqs(fph->vdev);
	fph_balloon_reset(fph);
}

static int check_feature(struct virtio_device *vdev, unsigned int bit, bool active,
			 const char *name)
{
	if (!active) {
		__virtio_clear_bit(vdev, bit);
		return 0;
	}
	if (virtio_has_feature(vdev, bit))
		return 0;
	dev_err(&vdev->dev, "this kernel runs with %s, which the device cannot deal with\n", name);
	return -EINVAL;
}

/* Does this kernel trust free pages, or some of them, to be zero? */
static bool trusts_zero(void)
{
#ifdef FPH_HAVE_PG_ZEROED
	return true;
#else
	return want_init_on_free();
#endif
}

/* A host that does not know what free pages hold might lose it. */
static int fph_validate(struct virtio_device *vdev)
{
	int ret;

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "not a virtio 1 device\n");
		return -EINVAL;
	}
	if (!virtio_has_feature(vdev, VIRTIO_FPH_F_BALLOON))
		__virtio_clear_bit(vdev, VIRTIO_FPH_F_BALLOON_OOM);
	ret = check_feature(vdev, VIRTIO_FPH_F_FREE_ZERO, trusts_zero(),
			    "free pages that are trusted to be zero");
	if (ret)
		return ret;
	return check_feature(vdev, VIRTIO_FPH_F_FREE_PATTERN, page_poisoning_enabled_static(),
			     "free pages that hold a pattern");
}

/* Another kernel may come next, by kexec: the device is not to write to it. */
static void fph_shutdown(struct virtio_device *vdev)
{
	struct fph *fph = vdev->priv;

	fph_balloon_halt(fph);
	quiesce(fph);
}

#ifndef FPH_HAVE_VIRTIO_SHUTDOWN
/*
 * Where the bus does not ask its drivers, it may do nothing or reset the device by
 * itself, and takes it ill in the second case if a driver wants to be asked.
 */
static int fph_reboot(struct notifier_block *nb, unsigned long action, void *arg)
{
	fph_shutdown(container_of(nb, struct fph, reboot)->vdev);
	return NOTIFY_DONE;
}

static void watch_reboot(struct fph *fph)
{
	fph->reboot.notifier_call = fph_reboot;
	register_reboot_notifier(&fph->reboot);
}

static void unwatch_reboot(struct fph *fph)
{
	unregister_reboot_notifier(&fph->reboot);
}
#else
static void watch_reboot(struct fph *fph) { }
static void unwatch_reboot(struct fph *fph) { }
#endif

static int fph_probe(struct virtio_device *vdev)
{
	struct fph *fph;
	int ret;

	fph = kzalloc(sizeof(*fph), GFP_KERNEL);
	if (!fph)
		return -ENOMEM;
	vdev->priv = fph;
	fph->vdev = vdev;
	fph->down = true;
	fph->encoder.send = send_pages;
	spin_lock_init(&fph->lock);
	init_waitqueue_head(&fph->wait);
	INIT_WORK(&fph->work, fph_report);
	ret = alloc_buffers(fph);
	if (ret)
		goto err_free;
	ret = fph_balloon_new(fph);
	if (ret)
		goto err_buffers;
	ret = go_up(fph);
	if (ret)
		goto err_balloon;
	watch_reboot(fph);
	return 0;
err_balloon:
	fph_balloon_free(fph);
err_buffers:
	free_buffers(fph);
err_free:
	vdev->priv = NULL;
	kfree(fph);
	return ret;
}

static void fph_remove(struct virtio_device *vdev)
{
	struct fph *fph = vdev->priv;

	unwatch_reboot(fph);
	take_down(fph);
	fph_balloon_free(fph);
	free_buffers(fph);
	kfree(fph);
}

#ifdef CONFIG_PM_SLEEP
static int fph_freeze(struct virtio_device *vdev)
{
	take_down(vdev->priv);
	return 0;
}

static int fph_restore(struct virtio_device *vdev)
{
	return go_up(vdev->priv);
}
#endif

static const struct virtio_device_id fph_ids[] = {
	{ VIRTIO_FPH_ID, VIRTIO_DEV_ANY_ID },
	{ 0 }
};
MODULE_DEVICE_TABLE(virtio, fph_ids);

static const unsigned int fph_features[] = {
	VIRTIO_FPH_F_FREE_ZERO,
	VIRTIO_FPH_F_FREE_PATTERN,
	VIRTIO_FPH_F_BALLOON,
	VIRTIO_FPH_F_BALLOON_OOM,
};

static struct virtio_driver fph_driver = {
	.feature_table = fph_features,
	.feature_table_size = ARRAY_SIZE(fph_features),
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.driver.dev_groups = fph_groups,
#ifdef FPH_HAVE_VIRTIO_SHUTDOWN
	.shutdown = fph_shutdown,
#endif
	.id_table = fph_ids,
	.validate = fph_validate,
	.probe = fph_probe,
	.remove = fph_remove,
	.config_changed = fph_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = fph_freeze,
	.restore = fph_restore,
#endif
};

static int __init fph_init(void)
{
	int ret;

	/*
	 * The sooner it walks, the more the host can leave out: at once, and on
	 * the CPU that took the interrupt, since another one may be asleep.
	 */
	fph_wq = alloc_workqueue(KBUILD_MODNAME,
				 WQ_HIGHPRI | WQ_CPU_INTENSIVE | WQ_FREEZABLE | WQ_PERCPU, 0);
	if (!fph_wq)
		return -ENOMEM;
	ret = fph_walk_init();
	if (ret)
		goto err_wq;
	ret = fph_balloon_init();
	if (ret)
		goto err_walk;
	ret = register_virtio_driver(&fph_driver);
	if (ret)
		goto err_balloon;
	return 0;
err_balloon:
	fph_balloon_exit();
err_walk:
	fph_walk_exit();
err_wq:
	destroy_workqueue(fph_wq);
	return ret;
}
module_init(fph_init);

static void __exit fph_exit(void)
{
	unregister_virtio_driver(&fph_driver);
	fph_balloon_exit();
	fph_walk_exit();
	destroy_workqueue(fph_wq);
}
module_exit(fph_exit);

MODULE_DESCRIPTION("Tells the host which pages are free, for live migration");
MODULE_LICENSE("GPL");
MODULE_VERSION(FPH_VERSION);
