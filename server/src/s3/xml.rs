//! XML documents: written with S3's escapes, read piece by piece in bounded memory.
//!
//! A reader asks for the elements that its document may have and meets everything else as [`MalformedXml`]: there is no
//! tree and no recursion, so neither depth nor the number of elements can grow beyond what is asked for. A document
//! type is refused, and so is every entity but XML's own five.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer};

/// The namespace of every document of S3 but `Error`.
const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";
/// Most documents are shorter.
const BYTES: usize = 1024;

/// Writes one document.
pub(crate) struct XmlWriter {
    writer: Writer<Vec<u8>>,
}

impl XmlWriter {
    /// A document with S3's namespace, whose content `inner` writes.
    pub(crate) fn document(root: &str, inner: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::long_document(root, BYTES, inner)
    }

    /// The same, of about so many bytes: it is not moved while it grows.
    pub(crate) fn long_document(root: &str, bytes: usize, inner: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::write(BytesStart::new(root).with_attributes([("xmlns", NAMESPACE)]), bytes, inner)
    }

    /// A document without a namespace.
    pub(crate) fn plain_document(root: &str, inner: impl FnOnce(&mut Self)) -> Vec<u8> {
        Self::write(BytesStart::new(root), BYTES, inner)
    }

    fn write(root: BytesStart<'_>, bytes: usize, inner: impl FnOnce(&mut Self)) -> Vec<u8> {
        let mut xml = Self { writer: Writer::new(Vec::with_capacity(bytes)) };
        xml.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
        xml.event(Event::Text(BytesText::from_escaped("\n")));
        xml.nest(root, inner);
        xml.writer.into_inner()
    }

    /// `<name>text</name>`.
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.event(Event::Start(BytesStart::new(name)));
        self.characters(text);
        self.event(Event::End(BytesEnd::new(name)));
    }

    /// Text of the current element itself.
    pub(crate) fn characters(&mut self, text: &str) {
        self.event(Event::Text(BytesText::from_escaped(escape(text))));
    }

    /// `<name>value</name>` of something that writes itself.
    pub(crate) fn value(&mut self, name: &str, value: impl Display) {
        self.text(name, &value.to_string());
    }

    /// `<name>text</name>`, or nothing when there is no text.
    pub(crate) fn optional(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// `<name>` with what `inner` writes in it.
    pub(crate) fn element(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.nest(BytesStart::new(name), inner);
    }

    /// An element with attributes.
    pub(crate) fn element_with(&mut self, name: &str, attributes: &[(&str, &str)], inner: impl FnOnce(&mut Self)) {
        self.nest(BytesStart::new(name).with_attributes(attributes.iter().copied()), inner);
    }

    fn nest(&mut self, start: BytesStart<'_>, inner: impl FnOnce(&mut Self)) {
        let end = start.to_end().into_owned();
        self.event(Event::Start(start));
        inner(self);
        self.event(Event::End(end));
    }

    fn event(&mut self, event: Event<'_>) {
        self.writer.write_event(event).expect("a Vec takes every byte");
    }
}

/// Escapes text as AWS does: also control characters, which XML 1.0 has no form for, become references. (A client that
/// has such keys asks for `encoding-type=url`.)
fn escape(text: &str) -> Cow<'_, str> {
    // Most is plain, and a listing has eight thousand texts.
    if text.bytes().all(|byte| byte >= b' ' && !matches!(byte, b'<' | b'>' | b'&' | b'"' | b'\'' | 0x7f)) {
        return Cow::Borrowed(text);
    }
    let is_control = |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r');
    let escaped = quick_xml::escape::escape(text);
    if !escaped.contains(is_control) {
        return escaped;
    }
    let mut referenced = String::with_capacity(escaped.len() + 16);
    for c in escaped.chars() {
        if is_control(c) {
            write!(referenced, "&#x{:x};", u32::from(c)).expect("a String takes every character");
        } else {
            referenced.push(c);
        }
    }
    Cow::Owned(referenced)
}

/// The document is not XML, or not the document that the operation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the XML is not well-formed or not the expected document")]
pub(crate) struct MalformedXml;

/// A document that is being read, always inside an element.
pub(crate) struct XmlReader<'a> {
    reader: Reader<&'a [u8]>,
}

impl<'a> XmlReader<'a> {
    /// Begins to read a document whose root has this name, in any namespace.
    pub(crate) fn open(bytes: &'a [u8], root: &str) -> Result<Self, MalformedXml> {
        let text = std::str::from_utf8(bytes).map_err(|_| MalformedXml)?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        reader.config_mut().expand_empty_elements = true;
        let mut document = Self { reader };
        match document.child()? {
            Some(name) if name == root => Ok(document),
            _ => Err(MalformedXml),
        }
    }

    /// The name of the next element inside the current one, which becomes the current one; `None` when the current one
    /// ends. Text between elements must be white space.
    pub(crate) fn child(&mut self) -> Result<Option<String>, MalformedXml> {
        loop {
            match self.event()? {
                Event::Start(start) => return Ok(Some(start.local_name().into_inner().to_owned())),
                Event::End(_) => return Ok(None),
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                _ => return Err(MalformedXml),
            }
        }
    }

    /// The text of the current element, which has no elements in it, and ends it.
    pub(crate) fn text(&mut self) -> Result<String, MalformedXml> {
        let mut content = String::new();
        loop {
            match self.event()? {
                Event::Text(text) => content.push_str(&text.xml10_content()),
                Event::CData(text) => content.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => content.push(resolve(&reference)?),
                Event::Comment(_) | Event::PI(_) => {}
                Event::End(_) => return Ok(content),
                _ => return Err(MalformedXml),
            }
        }
    }

    /// After the root has ended: nothing but white space follows.
    pub(crate) fn finish(mut self) -> Result<(), MalformedXml> {
        loop {
            match self.event()? {
                Event::Eof => return Ok(()),
                Event::Text(text) if text.trim_ascii().is_empty() => {}
                Event::Comment(_) | Event::PI(_) => {}
                _ => return Err(MalformedXml),
            }
        }
    }

    fn event(&mut self) -> Result<Event<'a>, MalformedXml> {
        self.reader.read_event().map_err(|_| MalformedXml)
    }
}

fn resolve(reference: &quick_xml::events::BytesRef<'_>) -> Result<char, MalformedXml> {
    if let Some(character) = reference.resolve_char_ref().map_err(|_| MalformedXml)? {
        return Ok(character);
    }
    let text = quick_xml::escape::resolve_predefined_entity(&reference.xml10_content()).ok_or(MalformedXml)?;
    text.chars().next().ok_or(MalformedXml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_written_with_namespace_and_escapes() {
        let bytes = XmlWriter::document("A", |xml| {
            xml.text("ETag", "\"<&>\"");
            xml.element("B", |xml| xml.value("C", 7));
            xml.optional("D", None);
            xml.text("E", "a\u{1}\r\nz");
        });
        let expected = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
            <A xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ETag>&quot;&lt;&amp;&gt;&quot;</ETag>\
            <B><C>7</C></B><E>a&#x1;&#13;\nz</E></A>";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    fn read(text: &str) -> Result<Vec<(String, String)>, MalformedXml> {
        let mut xml = XmlReader::open(text.as_bytes(), "Root")?;
        let mut children = Vec::new();
        while let Some(name) = xml.child()? {
            children.push((name, xml.text()?));
        }
        xml.finish()?;
        Ok(children)
    }

    #[test]
    fn elements_are_read_in_every_form_of_xml() {
        let text = "\u{feff}<?xml version='1.0'?><!-- c --><x:Root xmlns:x='u'>\n <A>1&amp;&#x41;<![CDATA[<]]>2</A> <x:B/>\n</x:Root>\n";
        let expected = [("A", "1&A<2"), ("B", "")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn everything_else_is_malformed() {
        for bad in [
            "",
            "   ",
            "Root",
            "<Root>",
            "<Root><A></Root>",
            "<Root></Root>more",
            "<Root/><Root/>",
            "<Other/>",
            "<Root>text</Root>",
            "<Root><A><B/></A></Root>",
            "<Root><A>&unknown;</A></Root>",
            "<Root><A>&#0;</A></Root>",
            "<!DOCTYPE Root><Root/>",
            "<!DOCTYPE r [<!ENTITY a \"aaaa\">]><Root><A>&a;</A></Root>",
            "<Root><!DOCTYPE r></Root>",
        ] {
            assert_eq!(read(bad), Err(MalformedXml), "{bad}");
        }
        assert!(XmlReader::open(b"<Root>\xff</Root>", "Root").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "[^\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\u{fffe}\\u{ffff}]*") {
            let bytes = XmlWriter::document("Root", |xml| xml.text("A", &text));
            let children = read(std::str::from_utf8(&bytes).unwrap()).unwrap();
            prop_assert_eq!(children, vec![("A".to_owned(), text)]);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes: Vec<u8>) {
            if let Ok(mut xml) = XmlReader::open(&bytes, "Root") {
                while let Ok(Some(_)) = xml.child() {
                    let _ = xml.text();
                }
            }
        }

        #[test]
        fn no_text_with_markup_breaks_the_reader(text in "[<>&;/!A\\[\\]\\-\"' #x]{0,40}") {
            let _ = read(&format!("<Root>{text}</Root>"));
        }
    }
}
