#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The HTML report: its structure, and how a browser shows it.

Arguments: fph-report, the folder with recorded results, --no-browser to leave
that part to another build. The browser is Debian's chromium; without it that
part says so, and the test is skipped.
"""
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET
import zlib

REPORT, DATA = sys.argv[1:3]
XHTML = '{http://www.w3.org/1999/xhtml}'
LIGHT, DARK = (255, 255, 255), (0x16, 0x16, 0x16)


def html(*names):
    files = [name if os.sep in name else os.path.join(DATA, name) for name in names]
    return subprocess.run([REPORT, 'compare', '--format', 'html', *files],
                          check=True, capture_output=True, text=True).stdout


def local(element):
    return element.tag.rsplit('}')[-1]


def together(tmp, text):
    """Files that are shown side by side: two channels, and sizes whose scans are on a line."""
    names = []
    for gib, machine in (1, ''), (2, ''), (4, ''), (1, '"multifd" : 2, '):
        names.append(os.path.join(tmp, f'{len(names)}.json'))
        changed = text.replace('"idle-256m"', f'"idle-{gib}g"') \
                      .replace('"cores"', machine + '"cores"')
        changed = re.sub(r'("memory" :) \d+', rf'\1 {gib << 30}', changed)
        with open(names[-1], 'w', encoding='utf-8') as f:
            f.write(re.sub(r'("scan_ns" :) \d+', rf'\1 {gib * 3000000}', changed))
    return names


class Structure(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = html('six-repeats.json', 'all-modes.json', 'three-repeats.json')
        cls.root = ET.fromstring(cls.text)
        cls.all = list(cls.root.iter())

    def find(self, name, **attributes):
        return [e for e in self.all if local(e) == name and
                all(e.get(k.rstrip('_')) == v for k, v in attributes.items())]

    def test_needs_nothing_but_itself(self):
        self.assertEqual([local(e) for e in self.all if local(e) in
                          ('script', 'link', 'img', 'iframe', 'object', 'embed')], [])
        self.assertNotIn('@import', self.text)
        for e in self.all:
            for name, value in e.attrib.items():
                self.assertFalse(name.startswith('on'), name)
                if name in ('href', 'src', 'action'):
                    self.assertTrue(value.startswith('#'), value)
        for target in re.findall(r'url\(([^)]*)\)', self.text):
            self.assertTrue(target.startswith('#'), target)
        policy = [e.get('content') for e in self.find('meta')
                  if e.get('http-equiv') == 'Content-Security-Policy']
        self.assertEqual(policy, ["default-src 'none'; style-src 'unsafe-inline'"])

    def test_references_lead_somewhere(self):
        ids = [e.get('id') for e in self.all if e.get('id')]
        self.assertEqual(len(ids), len(set(ids)))
        targets = re.findall(r'url\(#([^)]*)\)', self.text)
        for e in self.all:
            targets += (e.get('aria-labelledby') or '').split()
            if e.get('href'):
                targets.append(e.get('href')[1:])
        self.assertTrue(targets)
        self.assertEqual(set(targets) - set(ids), set())

    def test_can_be_read_aloud_and_by_keys(self):
        self.assertEqual(self.root.get('lang'), 'en')
        self.assertEqual(len(self.find('h1')), 1)
        for svg in self.find('svg'):
            if svg.get('aria-hidden') == 'true':
                continue
            self.assertEqual(svg.get('role'), 'img')
            self.assertTrue(svg.find(XHTML + 'title').text)
            self.assertTrue(svg.find(XHTML + 'desc').text)
        for table in self.find('table'):
            self.assertTrue(table.find(XHTML + 'caption').text)
            for th in table.iter(XHTML + 'th'):
                self.assertIn(th.get('scope'), ('row', 'col'))
        for e in self.find('div', class_='scroll'):
            self.assertEqual(e.get('tabindex'), '0')
            self.assertTrue(e.get('aria-label'))
        # What colour says is said by a dash as well.
        for e in self.find('polyline'):
            self.assertTrue(e.get('stroke-dasharray'))

    def test_has_what_was_measured(self):
        captions = [e.text for e in self.find('figcaption')]
        self.assertEqual(captions[:5], ['Total time and its floor', 'What became of each page',
                                        'Still to do, over time', 'Sent, over time',
                                        'Growth of memory'])
        # Without samples there are no curves: four more scenarios.
        self.assertEqual(len(captions), 5 + 4 * 3)
        figures = self.find('figure')
        self.assertEqual(len(list(figures[2].iter(XHTML + 'polyline'))), 2)
        plain = subprocess.run([REPORT, 'compare', os.path.join(DATA, 'six-repeats.json')],
                               check=True, capture_output=True, text=True).stdout
        row = re.search(r'^both .*', plain, re.M).group().split()
        cells = [e.text for e in self.find('table')[0].iter() if local(e) in ('th', 'td')]
        self.assertEqual(' '.join(cells[-7:]), ' '.join(row))
        # A bar of a failed row would be a lie.
        self.assertIn('failed', [e.text for e in figures[-3].iter(XHTML + 'text')])
        self.assertIn('Kernel panic', self.text)

    def check_pages_add_up(self, figure):
        ends = {}
        for rect in figure.iter(XHTML + 'rect'):
            if (rect.get('class') or '').startswith('seg') and rect.get('height') == '18.0':
                y = rect.get('y')
                ends[y] = max(ends.get(y, 0), float(rect.get('x')) + float(rect.get('width')))
        self.assertEqual(len(ends), 7)
        self.assertLess(max(ends.values()) - min(ends.values()), 4)

    def test_pages_add_up(self):
        # freed-1g of all-modes.json has no page that is sent twice.
        self.check_pages_add_up(self.find('figure')[6])

    def test_pages_of_several_guests_add_up(self):
        with open(os.path.join(DATA, 'all-modes.json'), encoding='utf-8') as f:
            text = f.read().replace(f'"memory": {1 << 30}', f'"guests": 2, "memory": {1 << 29}')
        with tempfile.NamedTemporaryFile('w', suffix='.json', encoding='utf-8') as f:
            f.write(text)
            f.flush()
            root = ET.fromstring(html(f.name))
        self.check_pages_add_up([e for e in root.iter() if local(e) == 'figure'][1])

    def test_results_together(self):
        # Dots on their lines, and a table with heads of rows and columns.
        with open(os.path.join(DATA, 'six-repeats.json'), encoding='utf-8') as f:
            text = f.read()
        with tempfile.TemporaryDirectory() as tmp:
            root = ET.fromstring(html(*together(tmp, text)))
        tables = [e.find(XHTML + 'caption').text for e in root.iter(XHTML + 'table')]
        self.assertEqual([t for t in tables if ': ' in t or ',' in t],
                         ['One channel, and several', 'Cost by size: idle, none',
                          'Cost by size: idle, both'])
        figure = [e for e in root.iter(XHTML + 'figure')
                  if e.find(XHTML + 'figcaption').text == 'Cost by size of the guest'][0]
        words = [e.text for e in figure.iter(XHTML + 'text')]
        self.assertEqual([w for w in words if w in ('scan', 'arm', 'apply', 'walk', 'lock')],
                         ['scan', 'arm', 'apply', 'walk', 'lock'])
        dots = [(float(e.get('cx')), float(e.get('cy'))) for e in figure.iter(XHTML + 'circle')]
        self.assertEqual(len(dots), 5 * 3)
        line = next(figure.iter(XHTML + 'polyline')).get('points')
        (x0, y0), (x1, y1) = (map(float, p.split(',')) for p in line.split())
        for x, y in dots[:3]:
            self.assertAlmostEqual(y, y0 + (x - x0) / (x1 - x0) * (y1 - y0), delta=1)

    def test_content_is_no_markup(self):
        with open(os.path.join(DATA, 'three-repeats.json'), encoding='utf-8') as f:
            text = f.read()
        with tempfile.TemporaryDirectory() as tmp:
            name = os.path.join(tmp, 'a&b.json')
            with open(name, 'w', encoding='utf-8') as f:
                f.write(text.replace('"idle-8g"', r'"<b>&\"x\" </b>"')
                        .replace('Kernel panic', '<script>alert(1)</script>'))
            root = ET.fromstring(html(name))
        self.assertIn('<b>&"x" </b>', [e.text for e in root.iter(XHTML + 'a')])
        self.assertEqual(list(root.iter(XHTML + 'script')), [])


def chromium(*arguments):
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run([CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
                               '--disable-dev-shm-usage', '--hide-scrollbars', '--user-data-dir=' + profile, *arguments],
                              check=True, capture_output=True, text=True, timeout=120)


def read_png(path):
    """Rows of RGB bytes of a PNG with 8 bits per sample."""
    with open(path, 'rb') as f:
        data = f.read()
    at, packed = 8, b''
    while at < len(data):
        length, kind = struct.unpack('>I4s', data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        if kind == b'IHDR':
            width, height, depth, colour = struct.unpack('>IIBB', body[:10])
        elif kind == b'IDAT':
            packed += body
        at += 12 + length
    assert depth == 8 and colour in (2, 6), (depth, colour)
    n = 3 if colour == 2 else 4
    raw, rows, before = zlib.decompress(packed), [], bytearray(width * n)
    for y in range(height):
        start = y * (width * n + 1)
        method, row = raw[start], bytearray(raw[start + 1:start + 1 + width * n])
        for i in range(len(row) if method else 0):
            left, up = row[i - n] if i >= n else 0, before[i]
            corner = before[i - n] if i >= n else 0
            if method == 1:
                guess = left
            elif method == 2:
                guess = up
            elif method == 3:
                guess = (left + up) // 2
            else:
                p = left + up - corner
                guess = min((abs(p - left), 0, left), (abs(p - up), 1, up),
                            (abs(p - corner), 2, corner))[2]
            row[i] = (row[i] + guess) & 255
        rows.append([tuple(row[i:i + 3]) for i in range(0, len(row), n)])
        before = row
    return rows


# Reports text that leaves its plot, and a page that is wider than its window.
PROBE = '''<script>
const bad = [];
for (const svg of document.querySelectorAll('svg[role=img]')) {
	const box = svg.viewBox.baseVal;
	for (const text of svg.querySelectorAll('text')) {
		const b = text.getBBox();
		if (b.x &lt; -1 || b.y &lt; -1 || b.x + b.width > box.width + 1 || b.y + b.height > box.height + 1)
			bad.push('outside: ' + text.textContent);
		for (const other of svg.querySelectorAll('text')) {
			const o = other.getBBox();
			if (other !== text &amp;&amp; b.x + 1 &lt; o.x + o.width &amp;&amp; o.x + 1 &lt; b.x + b.width &amp;&amp;
			    b.y + 4 &lt; o.y + o.height &amp;&amp; o.y + 4 &lt; b.y + b.height)
				bad.push('over each other: ' + text.textContent + ', ' + other.textContent);
		}
		for (const line of svg.querySelectorAll('.whisker, .mark, path.curve')) {
			const o = line.getBBox();
			if (b.x &lt; o.x + o.width &amp;&amp; o.x &lt; b.x + b.width &amp;&amp;
			    b.y + 4 &lt; o.y + o.height &amp;&amp; o.y + 4 &lt; b.y + b.height)
				bad.push('through text: ' + text.textContent);
		}
	}
}
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth)
	bad.push('wider than the window: ' + page.scrollWidth + ' > ' + page.clientWidth);
page.setAttribute('data-bad', JSON.stringify(bad));
page.setAttribute('data-fore', getComputedStyle(document.body).color);
</script></body>'''


class Browser(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.tmp = tempfile.TemporaryDirectory()
        cls.page = os.path.join(cls.tmp.name, 'report.html')
        # The same with long numbers, and with the longest names of modes.
        long = os.path.join(cls.tmp.name, 'long.json')
        with open(os.path.join(DATA, 'six-repeats.json'), encoding='utf-8') as f, \
             open(long, 'w', encoding='utf-8') as copy:
            copy.write(re.sub(r'("(total_ms|floor_ns)" : \d+)', r'\g<1>000', f.read())
                       .replace('"both"', '"both-balloon"'))
        with open(os.path.join(DATA, 'six-repeats.json'), encoding='utf-8') as f:
            several = together(cls.tmp.name, f.read())
        text = html('six-repeats.json', long, 'all-modes.json', 'three-repeats.json', *several)
        with open(cls.page, 'w', encoding='utf-8') as f:
            f.write(text)
        cls.probe = os.path.join(cls.tmp.name, 'probe.html')
        with open(cls.probe, 'w', encoding='utf-8') as f:
            f.write(re.sub(r'<meta http-equiv[^>]*/>', '', text)
                    .replace('</body>', PROBE.replace('&lt;', '<').replace('&amp;', '&')))

    @classmethod
    def tearDownClass(cls):
        cls.tmp.cleanup()

    def shot(self, dark):
        path = os.path.join(self.tmp.name, 'shot.png')
        chromium('--window-size=1000,700', '--screenshot=' + path,
                 '--blink-settings=preferredColorScheme=%d' % (0 if dark else 1),
                 'file://' + self.page)
        return read_png(path)

    def check_shot(self, dark, ground, bar):
        rows = self.shot(dark)
        self.assertEqual((len(rows), len(rows[0])), (700, 1000))
        seen = {}
        for row in rows:
            for pixel in row:
                seen[pixel] = seen.get(pixel, 0) + 1
        self.assertEqual(max(seen, key=seen.get), ground)
        # Text and plots, and not only a frame.
        self.assertLess(seen[ground], 0.97 * 700 * 1000)
        self.assertGreater(seen.get(bar, 0), 1000)

    def test_light(self):
        self.check_shot(False, LIGHT, (0x00, 0x72, 0xb2))

    def test_dark(self):
        self.check_shot(True, DARK, (0x5b, 0xb0, 0xe8))

    def test_layout(self):
        for width in (1200, 500):
            dom = chromium('--window-size=%d,900' % width, '--dump-dom',
                           'file://' + self.probe).stdout
            self.assertEqual(re.search(r'data-bad="([^"]*)"', dom).group(1), '[]', width)


CHROMIUM = shutil.which('chromium')
if __name__ == '__main__':
    if '--no-browser' in sys.argv:
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Structure)
        sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
    cases = [Structure] + ([Browser] if CHROMIUM else [])
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromTestCase(c) for c in cases)
    good = unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()
    if not CHROMIUM:
        print('SKIP: no chromium, so nobody looked at the page')
    required = os.environ.get('FPH_REQUIRE_KERNEL') == '1'
    sys.exit(1 if not good else 0 if CHROMIUM else 1 if required else 77)
